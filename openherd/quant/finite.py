"""Which numbers of F32, F16 and BF16 are finite, told by their exponents: no floats are made of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from openherd.quant.types import BlockType

U8 = NDArray[np.uint8]
# All ones in the exponent: infinity, or a NaN.
_EXPONENTS = {"F32": ("<u4", 0x7F800000), "F16": ("<u2", 0x7C00), "BF16": ("<u2", 0x7F80)}


def finite(raw: U8, type: BlockType) -> NDArray[np.bool_]:
    """One truth for each number of `raw`, in order; `type` is one of `PLAIN_TYPES`."""
    dtype, exponent = _EXPONENTS[type.name]
    bits = np.ascontiguousarray(raw).reshape(-1).view(dtype)
    found: NDArray[np.bool_] = (bits & exponent) != exponent
    return found
