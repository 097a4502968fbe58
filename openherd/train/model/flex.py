"""Attention on a GPU where a mask, a window, biases or capped scores are needed: PyTorch's FlexAttention.

Source: He et al. 2024, "FlexAttention". A block mask lists, for each block of 128 queries, the blocks of keys that any
of them sees, so packed rows and windows cost what they must; it is made once for a batch and a window. The kernel is
compiled once for a shape. Not covered: float64.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from openherd.config import ModelConfig
from openherd.kernels.alibi import alibi_slopes
from openherd.train.batch import Batch


class FlexAttention:
    """Attention of all layers with one window over one batch."""

    def __init__(self, config: ModelConfig, batch: Batch, window: int) -> None:
        self._config, self._change = config, _change_of_scores(config, batch.token_ids.device)
        B, T = batch.token_ids.shape
        documents = batch.documents

        def sees(b: Tensor, _: Tensor, query: Tensor, key: Tensor) -> Tensor:
            seen = (query >= key) & (documents[b, query] == documents[b, key])
            return seen & (query - key < window) if window else seen

        make = _compiled(create_block_mask) if documents.is_cuda else create_block_mask  # else [B, T, T] would exist
        self._mask = make(sees, B, None, T, T, device=documents.device)

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q [B, H, T, hd], k and v [B, K, T, hd] -> [B, H, T, hd]."""
        kernel: Any = (
            _compiled(flex_attention) if q.is_cuda else flex_attention
        )  # a CPU has only the slow meaning of it: for tests
        out: Tensor = kernel(
            q,
            k,
            v,
            score_mod=self._change,
            block_mask=self._mask,
            scale=self._config.attention_scale,
            enable_gqa=q.shape[1] != k.shape[1],
        )
        return out


@cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(function, dynamic=False)


def _change_of_scores(config: ModelConfig, device: torch.device) -> Callable[..., Tensor] | None:
    """What is done to scaled scores: capped (Gemma 2), then biased by distance (ALiBi)."""
    cap = config.attention_softcap
    slopes = torch.tensor(alibi_slopes(config), dtype=torch.float32, device=device) if config.alibi_max_bias else None
    if not cap and slopes is None:
        return None

    def change(score: Tensor, _: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        score = torch.tanh(score / cap) * cap if cap else score
        return score if slopes is None else score - slopes[head] * (query - key)

    return change
