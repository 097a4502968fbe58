"""A model's weights as readers of files hand them over, from memory: for the engine and for writers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch

from openherd.checkpoints.source import U8, Tensor
from openherd.quant.types import BLOCK_TYPES
from openherd.train.model.decoder import Decoder
from openherd.train.model.float_types import TYPE_NAMES
from openherd.train.model.loading import named_tensors


class PresentWeights(Mapping[str, Tensor]):
    """A model's weights under canonical names, LoRA merged, float32, bfloat16 or float16.

    Of a model in parts every process must make it, as the parts are brought together.
    """

    def __init__(self, model: Decoder) -> None:
        self._tensors = {name: _as_tensor(name, tensor.detach().cpu()) for name, tensor in named_tensors(model)}

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def _as_tensor(name: str, tensor: torch.Tensor) -> Tensor:
    rows = tensor.contiguous().reshape(-1, tensor.shape[-1])

    def read() -> U8:
        return rows.view(torch.uint8).numpy()

    return Tensor(name, tuple(tensor.shape), BLOCK_TYPES[TYPE_NAMES[tensor.dtype]], read)
