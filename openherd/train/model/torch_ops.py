"""`kernels.ops.Ops` in PyTorch: the third meaning of the engine's forward pass, and the one with gradients.

Values are [B, T, ...], B rows of T positions; otherwise the legend of `kernels/ops.py`. Weights are leaf modules, found
by their canonical names. Taps cost nothing here: nobody can ask for one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from openherd.config import Activation, ModelConfig
from openherd.kernels.ops import ExpertNames, TapName
from openherd.train.batch import Batch
from openherd.train.model.attention import Attention
from openherd.train.model.leaves import Norm
from openherd.train.model.rotary import Turn, at_positions, rotate, turns


class Rows:
    """What all layers of one forward share: the turns of the batch's positions, and which keys each query sees."""

    def __init__(self, config: ModelConfig, batch: Batch, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.token_ids = batch.token_ids
        tables = turns(config, batch.token_ids.shape[1], batch.token_ids.device)
        self.turns: tuple[Turn, ...] = (
            tables if batch.layout.one_document else tuple(at_positions(table, batch.positions) for table in tables)
        )
        self.attention = Attention(config, batch, dtype)


class TorchOps:
    """`Ops` for the rows of one batch; `leaf` finds a module by its canonical name."""

    def __init__(self, config: ModelConfig, leaf: Callable[[str], nn.Module], rows: Rows) -> None:
        self._config, self._leaf, self._rows = config, leaf, rows

    def embed(self, weight: str) -> Tensor:
        return cast(Tensor, self._leaf(weight)(self._rows.token_ids)).to(self._rows.dtype)  # [B, T, D]

    def rms_norm(self, x: Tensor, weight: str) -> Tensor:
        return cast(Norm, self._leaf(weight)).rms(x)

    def layer_norm(self, x: Tensor, weight: str) -> Tensor:
        return cast(Norm, self._leaf(weight)).layer(x)

    def head_norm(self, x: Tensor, weight: str) -> Tensor:
        return self.rms_norm(self._heads(x), weight).flatten(-2)

    def linear(self, x: Tensor, *names: str) -> tuple[Tensor, ...]:
        return tuple(self._leaf(name)(x) for name in names)

    def rope(self, x: Tensor, *, local: bool = False) -> Tensor:
        return rotate(self._heads(x), self._rows.turns[local]).flatten(-2)

    def attention(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        heads = (self._heads(x).transpose(1, 2) for x in (q, k, v))  # [B, H or K, T, hd]
        return self._rows.attention(layer, *heads).transpose(1, 2).flatten(-2)  # [B, T, H*hd]

    def _heads(self, x: Tensor) -> Tensor:
        """[B, T, n * hd] as [B, T, n, hd]; n from x itself, which under tensor parallelism has a share of the heads."""
        return x.reshape(*x.shape[:-1], -1, self._config.head_dim)

    def gate(self, activation: Activation, gate: Tensor, up: Tensor) -> Tensor:
        return self.activate(activation, gate) * up

    def activate(self, activation: Activation, x: Tensor) -> Tensor:
        if activation == "silu":
            return functional.silu(x)
        return functional.gelu(x, approximate="tanh" if activation == "gelu_tanh" else "none")

    def experts(self, x: Tensor, router: Tensor, experts: Sequence[ExpertNames]) -> Tensor:
        """Row by row to the experts it has chosen; an expert that no row has chosen still has gradients, of zero."""
        rows = x.flatten(0, 1)  # [B*T, D]
        # A stable sort keeps the order of ids among equal logits, which topk does not promise.
        best, ids = router.flatten(0, 1).float().sort(dim=-1, descending=True, stable=True)
        n = self._config.n_experts_per_token
        shares = best[:, :n].softmax(dim=-1)  # [B*T, n]
        out = torch.zeros_like(rows)
        for expert, (gate, up, down) in enumerate(experts):
            row, place = torch.where(ids[:, :n] == expert)  # ascending by id over the loop: sums have one order
            inner = self.gate(self._config.activation, *self.linear(rows[row], gate, up))
            share = shares[row, place, None].to(rows.dtype)
            out = out.index_add(0, row, self.linear(inner, down)[0] * share)
        return out.view_as(x)

    def scale(self, x: Tensor, factor: float) -> Tensor:
        return x * factor

    def clip(self, x: Tensor, bound: float) -> Tensor:
        return x.clamp(-bound, bound)

    def softcap(self, x: Tensor, cap: float) -> Tensor:
        return torch.tanh(x / cap) * cap

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y

    def tap(self, x: Tensor, layer: int, site: TapName) -> Tensor:
        return x

    def logit_rows(self, x: Tensor) -> Tensor:
        return x
