"""Raw blocks to values on tensors, on any device: equal bit for bit to `openherd.quant.dequantize`.

Covers Q8_0, Q4_0 and Q4_1, whose layouts `openherd.quant.block32` describes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from openherd.quant.types import BlockType


def decode(rows: Tensor, type: BlockType, dtype: torch.dtype) -> Tensor:
    """Rows of raw blocks, uint8 [N, row_bytes], as [N, K] values: computed in float32, rounded once to `dtype`."""
    blocks = rows.view(len(rows), -1, type.block_bytes)  # [N, blocks, bytes]
    return _DECODERS[type.name](blocks).to(dtype).flatten(1)


def _half(blocks: Tensor, at: int) -> Tensor:
    """The float16 at a byte of each block: [N, blocks, 1] float32."""
    return blocks[..., at : at + 2].contiguous().view(torch.float16).float()


def _codes(bytes: Tensor) -> Tensor:
    """Sixteen bytes of a block to 32 codes of four bits: all low ones, then all high ones."""
    return torch.cat((bytes & 15, bytes >> 4), dim=-1)


def _q8_0(blocks: Tensor) -> Tensor:
    return blocks[..., 2:].view(torch.int8).float() * _half(blocks, 0)


def _q4_0(blocks: Tensor) -> Tensor:
    return (_codes(blocks[..., 2:]).float() - 8) * _half(blocks, 0)


def _q4_1(blocks: Tensor) -> Tensor:
    return _codes(blocks[..., 4:]).float() * _half(blocks, 0) + _half(blocks, 2)


_DECODERS: dict[str, Callable[[Tensor], Tensor]] = {"Q8_0": _q8_0, "Q4_0": _q4_0, "Q4_1": _q4_1}
