"""The oracle: every operation of the forward pass, evaluated at once in NumPy.

Activations are stored in float32; every sum, norm, rotation and softmax is float64 and rounded once, at the end of its
operation. A row is computed by itself with shapes that do not depend on the batch (matrix-vector, never
matrix-matrix, whose blocking would change with T), so a row's bits are the same alone and in company. Slow on purpose.

Weights arrive as plain float matrices, dequantised from the file's raw blocks: nothing is shared with the native
core's packing. Legend as in `ops.py`; hd is head_dim, L the block length of the cache.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from openherd.config import Activation, ModelConfig
from openherd.kernels.alibi import alibi_slopes
from openherd.kernels.ops import ExpertNames, TapName
from openherd.kernels.rope import rotary_tables

F32: TypeAlias = NDArray[np.float32]
F64: TypeAlias = NDArray[np.float64]
I32: TypeAlias = NDArray[np.int32]
KVCache: TypeAlias = NDArray[np.floating]  # [num_blocks, n_layers, 2 (keys, values), L, K, hd]


@dataclass(frozen=True, slots=True)
class LowRank:
    """y += scale * B (A x), with A [r, K] and B [N, r] (Hu et al. 2021, eq. 3)."""

    a: F64
    b: F64
    scale: float


class Rows(Protocol):
    """The step's rows; the engine's TokenBatch is one."""

    token_ids: I32  # [T]
    positions: I32  # [T]
    seq_starts: I32  # [S+1]
    block_tables: I32  # [G, S, max_blocks]
    adapters: I32  # [S]
    logit_rows: I32  # [R]


class Reference:
    """`Ops` for one step. `weight(name)` gives a float64 array by its full canonical name.

    `tap_rows` lists (site's layer, site's name, rows); what the i-th sees is left in `tapped[i]`.
    """

    def __init__(
        self,
        config: ModelConfig,
        weight: Callable[[str], F64],
        cache: KVCache,
        rows: Rows,
        *,
        adapters: Mapping[int, Mapping[str, LowRank]] | None = None,
        tap_rows: Sequence[tuple[int, TapName, I32]] = (),
    ) -> None:
        self._config, self._weight, self._cache, self._rows = config, weight, cache, rows
        self._tap_rows = tap_rows
        self.tapped: dict[int, F32] = {}
        seq_of_row = np.repeat(np.arange(len(rows.adapters)), np.diff(rows.seq_starts))  # [T]
        self._tables = rows.block_tables[0][seq_of_row]  # [T, max_blocks]
        # pairs by weight for each row of the activations: T rows, and R once logit_rows has picked them
        self._row_pairs = [(adapters or {}).get(int(i), {}) for i in rows.adapters[seq_of_row]]
        self._turns = []  # of each table: cosines and sines, [T, rotary_dim/2] both
        for frequencies, scale in rotary_tables(config):
            angles = rows.positions[:, None] * frequencies
            self._turns.append((np.cos(angles) * scale, np.sin(angles) * scale))

    def embed(self, weight: str) -> F32:
        embedded: F32 = self._weight(f"{weight}.weight")[self._rows.token_ids].astype(np.float32)
        return embedded  # [T, D]

    def rms_norm(self, x: F32, weight: str) -> F32:
        x64 = x.astype(np.float64)
        root = np.sqrt(np.mean(x64 * x64, axis=-1, keepdims=True) + self._config.norm_eps)  # [T, 1]
        normed: F32 = (x64 / root * self._weight(f"{weight}.weight")).astype(np.float32)
        return normed  # [T, D]

    def layer_norm(self, x: F32, weight: str) -> F32:
        x64 = x.astype(np.float64)
        centred = x64 - x64.mean(axis=-1, keepdims=True)
        root = np.sqrt(np.mean(centred * centred, axis=-1, keepdims=True) + self._config.norm_eps)  # [T, 1]
        bias = self._weight(f"{weight}.bias") if self._config.norm_bias else 0.0
        normed: F32 = (centred / root * self._weight(f"{weight}.weight") + bias).astype(np.float32)
        return normed  # [T, D]

    def head_norm(self, x: F32, weight: str) -> F32:
        return self.rms_norm(x.reshape(len(x), -1, self._config.head_dim), weight).reshape(x.shape)

    def linear(self, x: F32, *names: str) -> tuple[F32, ...]:
        return tuple(self._linear(x, name) for name in names)

    def _linear(self, x: F32, name: str) -> F32:
        w = self._weight(f"{name}.weight")  # [N, K]
        bias = self._weight(f"{name}.bias") if self._config.has_bias(name) else 0.0
        y = np.empty((len(x), len(w)), np.float32)
        for t, row in enumerate(x.astype(np.float64)):
            total = w @ row + bias  # [N]
            pair = self._row_pairs[t].get(f"{name}.weight")
            y[t] = total if pair is None else total + pair.scale * (pair.b @ (pair.a @ row))
        return y  # [T, N]

    def rope(self, x: F32, *, local: bool = False) -> F32:
        d = self._config.rotary_dim
        heads = x.reshape(len(x), -1, self._config.head_dim).astype(np.float64)  # [T, H or K, hd]
        left, right = heads[..., : d // 2].copy(), heads[..., d // 2 : d].copy()
        cos, sin = (turn[:, None] for turn in self._turns[local])  # [T, 1, d/2]
        heads[..., : d // 2] = left * cos - right * sin
        heads[..., d // 2 : d] = right * cos + left * sin
        return heads.reshape(x.shape).astype(np.float32)

    def attention(self, layer: int, q: F32, k: F32, v: F32) -> F32:
        c, block_len = self._config, self._cache.shape[3]
        for t, position in enumerate(self._rows.positions):
            block, offset = self._tables[t, position // block_len], position % block_len
            self._cache[block, layer, 0, offset] = k[t].reshape(c.n_kv_heads, c.head_dim)
            self._cache[block, layer, 1, offset] = v[t].reshape(c.n_kv_heads, c.head_dim)
        out = np.empty_like(q)
        for t, position in enumerate(self._rows.positions):
            blocks = self._tables[t, : position // block_len + 1]
            pages = self._cache[blocks, layer].astype(np.float64)  # [blocks, 2, L, K, hd]
            keys, values = pages.transpose(1, 3, 0, 2, 4).reshape(2, c.n_kv_heads, -1, c.head_dim)[:, :, : position + 1]
            queries = q[t].reshape(c.n_kv_heads, -1, c.head_dim).astype(np.float64)  # [K, H/K, hd]
            scores = self._scores(layer, queries @ keys.transpose(0, 2, 1), position)  # [K, H/K, positions]
            weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
            out[t] = (weights / weights.sum(axis=-1, keepdims=True) @ values).reshape(-1)
        return out  # [T, H*hd]

    def _scores(self, layer: int, products: F64, position: int) -> F64:
        """Products of one query's heads and all keys up to its position, [K, H/K, positions], as softmax takes them."""
        c, distances = self._config, position - np.arange(position + 1)
        scores = products / np.sqrt(c.head_dim) if c.attention_scale is None else products * c.attention_scale
        if c.attention_softcap:
            scores = c.attention_softcap * np.tanh(scores / c.attention_softcap)
        if c.alibi_max_bias:
            scores = scores - alibi_slopes(c).reshape(c.n_kv_heads, -1, 1) * distances
        if c.window(layer):
            scores = np.where(distances < c.window(layer), scores, -np.inf)
        return scores

    def gate(self, activation: Activation, gate: F32, up: F32) -> F32:
        return (activated(activation, gate.astype(np.float64)) * up).astype(np.float32)  # [T, F]

    def activate(self, activation: Activation, x: F32) -> F32:
        return activated(activation, x.astype(np.float64)).astype(np.float32)  # [T, F]

    def experts(self, x: F32, router: F32, experts: Sequence[ExpertNames]) -> F32:
        out = np.zeros_like(x)
        for t, row in enumerate(x.astype(np.float64)):
            chosen = np.sort(np.argsort(-router[t], kind="stable")[: self._config.n_experts_per_token])
            logits = router[t, chosen].astype(np.float64)
            weights = np.exp(logits - logits.max())
            total = np.zeros(x.shape[1])
            for e, weight in zip(chosen, weights / weights.sum(), strict=True):
                gate, up, down = (self._weight(f"{name}.weight") for name in experts[e])
                total += weight * (down @ (activated(self._config.activation, gate @ row) * (up @ row)))
            out[t] = total
        return out  # [T, D]

    def scale(self, x: F32, factor: float) -> F32:
        return x * np.float32(factor)

    def clip(self, x: F32, bound: float) -> F32:
        return np.clip(x, np.float32(-bound), np.float32(bound))

    def softcap(self, x: F32, cap: float) -> F32:
        return (cap * np.tanh(x.astype(np.float64) / cap)).astype(np.float32)

    def add(self, x: F32, y: F32) -> F32:
        return x + y

    def tap(self, x: F32, layer: int, site: TapName) -> F32:
        for i, (wanted_layer, wanted_site, rows) in enumerate(self._tap_rows):
            if wanted_site == site and (wanted_layer == layer or site == "final"):
                self.tapped[i] = x[rows]
        return x

    def logit_rows(self, x: F32) -> F32:
        self._row_pairs = [self._row_pairs[row] for row in self._rows.logit_rows]
        return x[self._rows.logit_rows]  # [R, D]


def activated(activation: Activation, x: F64) -> F64:
    """silu and gelu as `Ops.activate` says; the tanh approximation is eq. 2 of Hendrycks and Gimpel 2016."""
    if activation == "silu":
        y: F64 = x * np.exp(-np.logaddexp(0.0, -x))
    elif activation == "gelu":
        y = x * 0.5 * np.vectorize(math.erfc, otypes=[np.float64])(-x / math.sqrt(2.0))
    else:
        y = 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))
    return y
