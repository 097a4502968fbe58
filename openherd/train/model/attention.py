"""Causal attention in which documents of one row do not see each other.

Which code computes it, and why:

* Rows of one document: scaled_dot_product_attention with is_causal, the fastest that PyTorch has on every device; the
  upper triangle is not computed.
* Rows of several documents on a CPU: the same for one document after another, which computes nothing twice and nothing
  in vain (a quarter of the time that a mask over the row takes, for 8 documents of 128 tokens), and makes isolation a
  matter of structure.
* On a GPU, where many small kernels cost more than they save: FlexAttention, whose block mask skips what no query of a
  block sees (`flex.py`). It also serves windows, biases and capped scores there.
* Windows and ALiBi on a CPU: a mask of distances, made once for all layers. Capped scores (Gemma 2) on a CPU: the
  matrix products themselves, since the fused kernel cannot cap.

Legend: B rows, T positions, H query heads, K key/value heads, hd values of a head, L positions of a document.
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
        self._config, T, device = config, batch.token_ids.shape[1], batch.token_ids.device
        self._windows = [w if (w := config.window(layer)) < T else 0 for layer in range(config.n_layers)]
        self._lengths = batch.layout.lengths
        unmasked = not (config.attention_softcap or config.alibi_max_bias)
        masked = {window for window in self._windows if window or not unmasked}
        by_flex = masked if batch.layout.one_document else set(self._windows)
        self._flex = {window: FlexAttention(config, batch, window) for window in by_flex if device.type == "cuda"}
        self._masks = {window: _mask(config, T, window, dtype, device) for window in masked - self._flex.keys()}

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q [B, H, T, hd], k and v [B, K, T, hd] -> [B, H, T, hd]."""
        window = self._windows[layer]
        if window in self._flex:
            return self._flex[window](q, k, v)
        k, v = (_for_each_query_head(x, q.shape[1]) for x in (k, v))
        mask = self._masks.get(window)
        return self._by_documents(q, k, v, mask) if self._lengths else self._causal(q, k, v, mask)

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # documents change from batch to batch
    def _by_documents(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        rows = []
        for lengths, *row in zip(self._lengths, q.split(1), k.split(1), v.split(1), strict=True):
            documents = zip(*(x.split(lengths, dim=2) for x in row), strict=True)
            rows.append(torch.cat([self._causal(q, k, v, mask) for q, k, v in documents], dim=2))
        return torch.cat(rows)

    def _causal(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """Of one document in each row."""
        scale = self._config.attention_scale
        if mask is None:
            return functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale)
        mask = mask[..., : q.shape[2], : q.shape[2]]
        if self._config.attention_softcap:
            return _capped(q, k, v, mask, self._config)
        return functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)


def _mask(config: ModelConfig, T: int, window: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """What is added to scores, [1, 1 or H, T, T]: 0 or ALiBi's bias, and -inf where a query does not see the key."""
    places = torch.arange(T, device=device)
    distances = places[:, None] - places  # [T, T]
    seen = (distances >= 0) & (distances < (window or T))
    biases = torch.zeros(1, 1, 1, device=device)
    if config.alibi_max_bias:
        slopes = torch.tensor(alibi_slopes(config), dtype=torch.float32, device=device)
        biases = -slopes[:, None, None] * distances  # [H, T, T]
    return torch.where(seen, biases, -torch.inf).to(dtype)[None]


def _for_each_query_head(x: Tensor, n_heads: int) -> Tensor:
    """Keys or values [B, K, T, hd] as [B, H, T, hd]; on a CPU as fast as the kernel's own grouping."""
    B, K, T, hd = x.shape
    return x if n_heads == K else x[:, :, None].expand(B, K, n_heads // K, T, hd).reshape(B, n_heads, T, hd)


def _capped(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, config: ModelConfig) -> Tensor:
    """Softmax of c tanh(score / c) (Gemma Team 2024, "Gemma 2", section 2), in float32."""
    scale = q.shape[-1] ** -0.5 if config.attention_scale is None else config.attention_scale
    cap = config.attention_softcap
    scores = torch.tanh((q @ k.transpose(-1, -2)).float() * (scale / cap)) * cap
    return (scores + mask).softmax(dim=-1).to(q.dtype) @ v
