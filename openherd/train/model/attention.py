"""Causal attention in which documents of one row do not see each other.

Which code computes it, and why:

* Rows of one document and no window: scaled_dot_product_attention with is_causal. The fastest that PyTorch has on
  every device; no mask exists, and the upper triangle is not computed.
* Otherwise on a CPU: the same function with a mask [B, 1, T, T], made once for all layers.
* Otherwise on a GPU: FlexAttention, whose block mask skips what no query of a block sees (`flex_attention.py`).
* Capped scores (Gemma 2) on a CPU: the matrix products themselves, since the fused kernel cannot cap.

A key that a query does not see has weight exp(-inf), exactly 0, so another document cannot change a bit of the result
(short of infinite or NaN activations).

Legend: B rows, T positions, H query heads, K key/value heads, hd values of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from openherd.config import ModelConfig
from openherd.kernels.alibi import alibi_slopes
from openherd.train.batch import Batch
from openherd.train.model.flex import FlexAttention


class Attention:
    """Attention over one batch. What the layers share is made here, before the first of them runs."""

    def __init__(self, config: ModelConfig, batch: Batch, dtype: torch.dtype) -> None:
        self._config, T = config, batch.token_ids.shape[1]
        self._windows = [w if (w := config.window(layer)) < T else 0 for layer in range(config.n_layers)]
        self._plain = batch.layout.one_document and not (config.attention_softcap or config.alibi_max_bias)
        masked = {window for window in self._windows if window or not self._plain}
        self._flex = {window: FlexAttention(config, batch, window) for window in masked if batch.token_ids.is_cuda}
        self._masks = {window: _mask(config, batch, window, dtype) for window in masked - self._flex.keys()}

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q [B, H, T, hd], k and v [B, K, T, hd] -> [B, H, T, hd]."""
        scale, window = self._config.attention_scale, self._windows[layer]
        if window in self._flex:
            return self._flex[window](q, k, v)
        k, v = (_for_each_query_head(x, q.shape[1]) for x in (k, v))
        if window not in self._masks:
            return functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale)
        if self._config.attention_softcap:
            return _capped(q, k, v, self._masks[window], self._config)
        return functional.scaled_dot_product_attention(q, k, v, attn_mask=self._masks[window], scale=scale)


def sees(batch: Batch, window: int) -> Tensor:
    """[B or 1, T, T]: whether the query of the second dimension sees the key of the third.

    Rows of one document all see alike; what padding sees is of no account to them.
    """
    T, device = batch.token_ids.shape[1], batch.token_ids.device
    places = torch.arange(T, device=device)
    distances = places[:, None] - places  # within a document the distance of places is that of positions
    causal = distances >= 0 if not window else (distances >= 0) & (distances < window)
    if batch.layout.one_document:
        return causal[None]
    return causal & (batch.documents[:, :, None] == batch.documents[:, None, :])


def _mask(config: ModelConfig, batch: Batch, window: int, dtype: torch.dtype) -> Tensor:
    """What is added to scores, [B or 1, 1 or H, T, T]: 0 or ALiBi's bias, and -inf where a query does not see the key.

    Not booleans: from those the kernel makes this in every layer anew, and every layer keeps its own.
    """
    T, device = batch.token_ids.shape[1], batch.token_ids.device
    biases = torch.zeros((), device=device)
    if config.alibi_max_bias:
        places = torch.arange(T, device=device)
        slopes = torch.tensor(alibi_slopes(config), dtype=torch.float32, device=device)
        biases = -slopes[:, None, None] * (places[:, None] - places)  # [H, T, T]
    return torch.where(sees(batch, window)[:, None], biases, -torch.inf).to(dtype)


def _for_each_query_head(x: Tensor, n_heads: int) -> Tensor:
    """Keys or values [B, K, T, hd] as [B, H, T, hd], a view where that is possible."""
    B, K, T, hd = x.shape
    return x if n_heads == K else x[:, :, None].expand(B, K, n_heads // K, T, hd).reshape(B, n_heads, T, hd)


def _capped(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, config: ModelConfig) -> Tensor:
    """Softmax of c tanh(score / c) (Gemma Team 2024, "Gemma 2", section 2), in float32."""
    scale = q.shape[-1] ** -0.5 if config.attention_scale is None else config.attention_scale
    cap = config.attention_softcap
    scores = torch.tanh((q @ k.transpose(-1, -2)).float() * (scale / cap)) * cap
    return (scores + mask).softmax(dim=-1).to(q.dtype) @ v
