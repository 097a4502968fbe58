"""Searched block codes from the compiled core: `quant/quantize_search.py` on all threads, the same bytes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from openherd import _native
from openherd.kernels.cores import compute_threads
from openherd.kernels.native import default_isa, make_pool
from openherd.quant.types import BlockType

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]


class RowQuantizer:
    """A pool of threads that quantises. Results do not depend on how many there are, nor on the instruction set."""

    def __init__(self, threads: int | None = None) -> None:
        self._pool = make_pool(compute_threads(threads))
        self._isa = default_isa()

    def __call__(self, x: F32, type: BlockType, importance: F32 | None = None) -> tuple[U8, float, float]:
        """Blocks [N, row bytes] of finite x [N, K], and the sums of importance * error^2 and importance * x^2.

        `importance` [K] is what a squared error in each column counts; None: 1. A sum that is not finite says that x
        is not, or holds values beyond the range of the type's scales. Raises ValueError for a type that is not
        searched for.
        """
        return _native.quantize_rows(self._pool, type.ggml_id, x, importance, isa=self._isa)
