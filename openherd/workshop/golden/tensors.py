"""Facts of one tensor: a digest of its raw blocks, and projections that survive quantisation.

A projection is the sum of a group's values, each times a fixed sign, over the square root of their number: of values
with root mean square r it has that size too. Rounding changes it by about the rounding's own root mean square, while
rows or whole tensors in another order change it by as much as it is large. Eight groups of rows with four patterns of
signs make 32 numbers for a tensor. Johnson and Lindenstrauss (1984) is the idea; Achlioptas (2003) the signs.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from openherd.checkpoints.source import Checkpoint, Tensor
from openherd.quant.dequantize import dequantize
from openherd.workshop.golden.document import TensorFacts

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

_GROUPS = 8
_PATTERNS = 4
_CHUNK_VALUES = 1 << 20
_DIGITS = 5  # float32 sums of other orders agree to more


def tensor_facts(tensor: Tensor) -> TensorFacts:
    """Reads the tensor once, row chunk by row chunk, and gives its pages back."""
    digest = hashlib.sha256()
    sketch = _Sketch(tensor)
    for rows in row_chunks(tensor):
        digest.update(np.ascontiguousarray(rows).data)
        sketch.add(dequantize(rows, tensor.type))
    tensor.give_back()
    return TensorFacts(tensor.type.name, tensor.shape, digest.hexdigest(), sketch.rms(), sketch.values())


def first_not_finite(checkpoint: Checkpoint) -> str | None:
    """The name of the first tensor with a value that is NaN or infinite."""
    for name in checkpoint.tensors:
        tensor = checkpoint.tensors[name]
        is_finite = all(np.isfinite(dequantize(rows, tensor.type)).all() for rows in row_chunks(tensor))
        tensor.give_back()
        if not is_finite:
            return name
    return None


def row_chunks(tensor: Tensor) -> Iterator[U8]:
    """The raw rows, [n, row_bytes], about a million values at a time."""
    rows = tensor.rows()
    step = max(1, _CHUNK_VALUES // tensor.shape[-1])
    for start in range(0, len(rows), step):
        yield rows[start : start + step]


class _Sketch:
    """Sums of a tensor that comes in chunks of rows."""

    def __init__(self, tensor: Tensor) -> None:
        self._n_rows, self._length = tensor.n_rows, tensor.shape[-1]
        if self._n_rows == 1:  # a vector's elements are its rows
            self._n_rows, self._length = self._length, 1
        self._columns = np.stack([_signs(self._length, 2 * p) for p in range(_PATTERNS)], axis=1)  # [K, P]
        self._rows = np.stack([_signs(self._n_rows, 2 * p + 1) for p in range(_PATTERNS)], axis=1)  # [N, P]
        self._group = np.arange(self._n_rows, dtype=np.int64) * _GROUPS // self._n_rows  # [N]
        self._sums = np.zeros((_GROUPS, _PATTERNS))
        self._squares = 0.0
        self._num_rows = 0

    def add(self, values: F32) -> None:
        """The next rows, [n, K]."""
        values = values.reshape(-1, self._length)
        at = slice(self._num_rows, self._num_rows + len(values))
        with np.errstate(all="ignore"):
            projected = (values @ self._columns) * self._rows[at]  # [n, P]
            np.add.at(self._sums, self._group[at], projected.astype(np.float64))
            self._squares += float(np.einsum("nk,nk->", values, values, dtype=np.float64))
        self._num_rows += len(values)

    def rms(self) -> float:
        return _rounded(math.sqrt(self._squares / (self._n_rows * self._length)))

    def values(self) -> tuple[float, ...]:
        sizes = np.bincount(self._group, minlength=_GROUPS) * self._length
        scaled = self._sums / np.sqrt(np.maximum(sizes, 1))[:, None]
        return tuple(_rounded(value) for value in scaled.reshape(-1))


def _signs(count: int, pattern: int) -> F32:
    """`count` signs that look random and are the same everywhere: a bit of a mixed counter (splitmix64)."""
    x = np.arange(count, dtype=np.uint64) + np.uint64((pattern << 40) + 1)
    x *= np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    return np.where(x >> np.uint64(63), np.float32(1), np.float32(-1)).astype(np.float32)


def _rounded(value: float) -> float:
    """JSON has no infinity: weights that are not finite have the projection 0, and fail by their digest."""
    return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else 0.0
