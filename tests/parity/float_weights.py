"""A model's tensors as float32, for comparing a quantised path with the same weights unrounded."""

from __future__ import annotations

from collections.abc import Iterator

from openherd.checkpoints.source import Tensor, TensorSource
from openherd.quant.dequantize import dequantize
from tests.parity.random_llama import float_tensor


class FloatWeights:
    """A TensorSource that dequantises a tensor each time it is asked for, and keeps none."""

    def __init__(self, source: TensorSource) -> None:
        self._source = source

    def __getitem__(self, name: str) -> Tensor:
        tensor = self._source[name]
        return float_tensor(name, dequantize(tensor.rows(), tensor.type).reshape(tensor.shape))

    def __contains__(self, name: object) -> bool:
        return name in self._source

    def __iter__(self) -> Iterator[str]:
        return iter(self._source)

    def __len__(self) -> int:
        return len(self._source)
