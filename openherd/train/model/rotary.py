"""Rotary position embeddings on tensors, from the engine's own tables of frequencies.

Legend: B rows, T positions, H heads, hd values of a head, d of them rotated.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from openherd.config import ModelConfig
from openherd.kernels.rope import for_context, rotary_tables

# Cosines and sines, both halves, of the sines the first negated: [1 or B, T, 1, d] float32.
Turn = tuple[Tensor, Tensor]


@lru_cache(maxsize=8)
def turns(config: ModelConfig, length: int, device: torch.device) -> tuple[Turn, ...]:
    """Cosines and sines of positions 0 to length - 1, for each of the model's tables; angles are float64.

    LongRoPE takes its long list where rows are longer than the original context, as the papers' code does.
    """
    with torch.inference_mode(False):  # what is kept must serve a training step too
        tables = rotary_tables(for_context(config, length))
        return tuple(_turn(frequencies, scale, length, device) for frequencies, scale in tables)


def _turn(frequencies: np.ndarray, scale: float, length: int, device: torch.device) -> Turn:
    angles = np.arange(length)[:, None] * np.concatenate([frequencies, frequencies])  # [T, d]
    sines = np.sin(angles)
    sines[:, : len(frequencies)] *= -1
    cos, sin = (
        torch.from_numpy((values * scale).astype(np.float32)).to(device)[None, :, None]
        for values in (np.cos(angles), sines)
    )
    return cos, sin


def at_positions(turn: Turn, positions: Tensor) -> Turn:
    """The turns of `positions`, [B, T]."""
    cos, sin = (table[0][positions] for table in turn)
    return cos, sin


def rotate(heads: Tensor, turn: Turn) -> Tensor:
    """Each head [B, T, H, hd] turned by its position, halves of its first d values paired (Su et al. 2021, eq. 34)."""
    cos, sin = turn
    d = cos.shape[-1]
    turned = cast(Tensor, _Rotation.apply(heads[..., :d].float(), cos, sin)).to(heads.dtype)
    return turned if d == heads.shape[-1] else torch.cat((turned, heads[..., d:]), dim=-1)


class _Rotation(torch.autograd.Function):
    """Its gradient is the rotation back, so nothing of x is kept, and both are three passes instead of a dozen."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turned(x, cos, sin, 1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _turned(grads[0], cos, sin, -1), None, None


def _turned(x: Tensor, cos: Tensor, sin: Tensor, direction: int) -> Tensor:
    return (x * cos).addcmul_(x.roll(x.shape[-1] // 2, dims=-1), sin, value=direction)
