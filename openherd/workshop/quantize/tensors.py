"""One tensor after another: float rows in, blocks out, a few megabytes at a time, and what each has lost."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from openherd.checkpoints.gguf_writer import PlannedTensor
from openherd.checkpoints.source import U8
from openherd.errors import FormatError
from openherd.kernels.quantize_rows import F32, RowQuantizer
from openherd.quant.dequantize import dequantize
from openherd.quant.finite import finite
from openherd.quant.quantize import quantize
from openherd.quant.types import PLAIN_TYPES, BlockType
from openherd.workshop.importance import Importance
from openherd.workshop.quantize.mixes import Mix, Shape, fitting


@dataclass(slots=True)
class TensorResult:
    """What became of one tensor; the errors are known once it was written."""

    name: str
    source_type: str
    type: str
    wanted: str  # by the mix, where the rows' length allowed it
    n_values: int
    nbytes: int
    weighted: bool  # by an importance of its columns
    squared_error: float = 0.0  # sum over the values of importance * (w - w')^2
    power: float = 0.0  # sum of importance * w^2

    @property
    def relative_error(self) -> float:
        """Root mean square of the error over that of the weights, both weighted by importance."""
        return math.sqrt(self.squared_error / self.power) if self.power else 0.0


class TensorQuantizer:
    """Plans each tensor's type and makes its bytes when they are written. Results are kept in `results`."""

    def __init__(self, mix: Mix, model: Shape, importance: Importance | None, threads: int | None) -> None:
        self._mix = mix
        self._model = model
        self._importance = importance
        self._quantizer = RowQuantizer(threads)
        self.results: list[TensorResult] = []

    def plan(self, tensor: PlannedTensor) -> PlannedTensor:
        """Raises FormatError for an importance matrix that does not fit the tensor."""
        weighted = self._importance is not None
        wanted = self._mix.type_for(tensor.name, tensor.shape, self._model, weighted=weighted)
        target = tensor.type if wanted is None else fitting(wanted, tensor.shape)
        if target.bits_per_weight >= tensor.type.bits_per_weight:
            target = tensor.type  # nothing would be gained
        result = TensorResult(
            tensor.name,
            tensor.type.name,
            target.name,
            target.name if wanted is None or target is tensor.type else wanted.name,
            math.prod(tensor.shape),
            math.prod(tensor.shape[:-1]) * target.row_bytes(tensor.shape[-1]),
            self._is_weighted(tensor, target),
        )
        self.results.append(result)
        if target is tensor.type:
            return tensor if target.name not in PLAIN_TYPES else replace(tensor, chunks=lambda: _checked(tensor))
        return PlannedTensor(tensor.name, tensor.shape, target, lambda: self._quantized(tensor, target, result))

    def _is_weighted(self, tensor: PlannedTensor, target: BlockType) -> bool:
        if self._importance is None or target is tensor.type or target.name in PLAIN_TYPES:
            return False
        return self._importance.covers(tensor.name, tensor.shape)

    def _quantized(self, tensor: PlannedTensor, target: BlockType, result: TensorResult) -> Iterator[U8]:
        width, n_rows, first = tensor.shape[-1], math.prod(tensor.shape[:-1]), 0
        importance = self._importance.of(tensor.name, tensor.shape) if self._importance else None
        n_experts = 1 if importance is None else len(importance)
        for raw in tensor.chunks():
            rows = raw.reshape(-1, tensor.type.row_bytes(width))
            for expert, piece in _of_each_expert(first, first + len(rows), n_rows // n_experts):
                x = _floats(rows[piece.start - first : piece.stop - first], tensor.type)
                blocks = self._encode(x, target, None if importance is None else importance[expert], result)
                if not math.isfinite(result.squared_error + result.power):
                    raise _not_held(tensor.name, x, target)
                yield blocks
            first += len(rows)

    def _encode(self, x: F32, target: BlockType, importance: F32 | None, result: TensorResult) -> U8:
        if target.name in PLAIN_TYPES:
            blocks = quantize(x, target)
            error = (x - dequantize(blocks, target)).astype(np.float64)
            squared, power = float(np.sum(error * error)), float(np.sum(x.astype(np.float64) ** 2))
        else:
            blocks, squared, power = self._quantizer(x, target, importance)
        result.squared_error += squared
        result.power += power
        return blocks


def _checked(tensor: PlannedTensor) -> Iterator[U8]:
    """What stays as it is, of plain numbers. Raises FormatError where one is not finite."""
    for raw in tensor.chunks():
        if not finite(raw, tensor.type).all():
            raise _not_finite(tensor.name)
        yield raw


def _floats(rows: U8, type: BlockType) -> F32:
    """Float32 rows; those of the file itself where they are that already."""
    if type.name == "F32" and rows.flags.c_contiguous:
        x: F32 = rows.view("<f4")
        if x.flags.aligned:
            return x
    return dequantize(rows, type)


def _not_held(name: str, x: F32, type: BlockType) -> FormatError:
    if not np.isfinite(x).all():
        return _not_finite(name)
    return FormatError(f"{name} holds weights that are too large for {type.name}")


def _not_finite(name: str) -> FormatError:
    return FormatError(f"{name} holds weights that are not finite numbers (NaN or infinity)")


def _of_each_expert(start: int, stop: int, per_expert: int) -> Iterator[tuple[int, range]]:
    """The rows from `start` to `stop` by the expert whose they are."""
    for expert in range(start // per_expert, -(-stop // per_expert)):
        yield expert, range(max(start, expert * per_expert), min(stop, (expert + 1) * per_expert))
