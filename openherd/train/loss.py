"""Negative log-likelihood of a batch's targets without ever holding logits of all its tokens.

Logits of 4,096 tokens over a vocabulary of 128,256 are 2 GB in float32, and their gradient as much again. Here they
exist for a chunk of tokens at a time. `nll_sum` finishes a chunk's gradient while its logits are there, as Liger's
fused loss does (Hsu et al. 2024): what comes from outside is one factor for all of it, so nothing is computed twice.
`token_logprobs`, whose gradient comes token by token, computes logits again in the backward pass. Log-probabilities and
sums are float32.

Legend: B rows, T positions, N tokens, D width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from openherd.config import ModelConfig
from openherd.train.batch import Batch
from openherd.train.memory import CHUNK_LOGITS
from openherd.train.model.decoder import Decoder


def nll_sum(model: Decoder, hidden: Tensor, batch: Batch, chunk: int = 0) -> Tensor:
    """The sum of weight * -log p(target), a float32 scalar, of final hidden states [B, T, D].

    `chunk` tokens at a time; 0: as many as make 16 million logits.
    """
    rows = _learnt(hidden, batch)
    return cast(Tensor, _NllSum.apply(*rows, model.head.weight, _Head.of(model, chunk)))


def token_logprobs(model: Decoder, hidden: Tensor, batch: Batch, chunk: int = 0, *, temperature: float = 1.0) -> Tensor:
    """log p(target) of each position at a temperature, [B, T] float32, 0 where the weight is 0."""
    rows, targets, weights = _learnt(hidden, batch)
    head = _Head.of(model, chunk, temperature)
    logprobs = cast(Tensor, _LogProbs.apply(rows, targets, model.head.weight, head))
    out = torch.zeros_like(batch.weights)
    return out.masked_scatter(batch.weights != 0, logprobs) if len(weights) < out.numel() else logprobs.view_as(out)


def _learnt(hidden: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states, targets and weights of the positions whose weight is not 0: [N, D], [N], [N]."""
    rows, targets, weights = hidden.flatten(0, 1), batch.targets.flatten(), batch.weights.flatten()
    if batch.layout.all_learnt:
        return rows, targets, weights
    places = weights.nonzero().squeeze(1)
    return rows[places], targets[places], weights[places]


@dataclass(frozen=True, slots=True)
class _Head:
    """How hidden states become logits, and how many tokens at a time."""

    scale: float
    cap: float
    chunk: int
    temperature: float = 1.0  # what capped logits are divided by

    @classmethod
    def of(cls, model: Decoder, chunk: int, temperature: float = 1.0) -> _Head:
        c: ModelConfig = model.config
        return cls(c.logit_scale, c.logit_softcap, chunk or max(1, CHUNK_LOGITS // c.vocab_size), temperature)

    def logits(self, rows: Tensor, weight: Tensor) -> Tensor:
        """[N, D] -> [N, V] float32."""
        logits = (rows @ weight.t()).float()
        if self.scale != 1.0:
            logits *= self.scale
        if self.cap:
            logits = torch.tanh(logits / self.cap).mul_(self.cap)
        return logits if self.temperature == 1.0 else logits.div_(self.temperature)

    def gradient(self, logits: Tensor, log_sums: Tensor, targets: Tensor, factors: Tensor) -> Tensor:
        """The gradient of sum(factor * -log p(target)) with respect to the product of hidden states and weight, [N, V]:
        softmax less one at the target, through cap and scale. In the place of the logits."""
        slopes = 1 - (logits / (self.cap / self.temperature)).square() if self.cap else None
        grad = logits.sub_(log_sums[:, None]).exp_()
        grad[torch.arange(len(targets), device=targets.device), targets] -= 1
        grad *= factors[:, None] * (self.scale / self.temperature)
        return grad if slopes is None else grad.mul_(slopes)

    def chunks(self, n: int) -> list[slice]:
        return [slice(start, start + self.chunk) for start in range(0, n, self.chunk)]


class _NllSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, targets: Tensor, weights: Tensor, weight: Tensor, head: _Head) -> Tensor:
        grads = _Gradients.of(ctx, rows, weight, weight_input=3)
        cast_weight = weight.to(rows.dtype)
        total = torch.zeros((), dtype=torch.float32, device=rows.device)
        for part in head.chunks(len(rows)):
            logits = head.logits(rows[part], cast_weight)
            log_sums = torch.logsumexp(logits, dim=-1)
            total += torch.dot(log_sums - _at(logits, targets[part]), weights[part])
            if grads.wanted:
                grads.add(part, head.gradient(logits, log_sums, targets[part], weights[part]), cast_weight)
        ctx.grads = grads
        return total

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        of_rows, of_weight = ctx.grads.scaled(outer[0])
        ctx.grads = None
        return of_rows, None, None, of_weight, None


class _LogProbs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, targets: Tensor, weight: Tensor, head: _Head) -> Tensor:
        ctx.save_for_backward(rows, targets, weight)
        ctx.head = head
        cast_weight = weight.to(rows.dtype)
        out = torch.empty(len(rows), dtype=torch.float32, device=rows.device)
        for part in head.chunks(len(rows)):
            logits = head.logits(rows[part], cast_weight)
            out[part] = _at(logits, targets[part]) - torch.logsumexp(logits, dim=-1)
        return out

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        rows, targets, weight = ctx.saved_tensors
        grads = _Gradients.of(ctx, rows, weight, weight_input=2)
        cast_weight = weight.to(rows.dtype)
        for part in ctx.head.chunks(len(rows)):
            logits = ctx.head.logits(rows[part], cast_weight)
            log_sums = torch.logsumexp(logits, dim=-1)
            grads.add(part, ctx.head.gradient(logits, log_sums, targets[part], -outer[0][part]), cast_weight)
        return grads.rows, None, grads.in_weights_type(weight), None


def _at(logits: Tensor, targets: Tensor) -> Tensor:
    """The logit of each row's target, [N]."""
    return logits.gather(1, targets[:, None]).squeeze(1)


@dataclass(slots=True)
class _Gradients:
    """Gradients of hidden states and of the output matrix, as far as they are wanted."""

    hidden: Tensor  # [N, D]
    rows: Tensor | None  # [N, D], in the type of the hidden states
    weight: Tensor | None  # [V, D] float32: sums over chunks

    @classmethod
    def of(cls, ctx: Any, rows: Tensor, weight: Tensor, weight_input: int) -> _Gradients:
        of_rows = torch.empty_like(rows) if ctx.needs_input_grad[0] else None
        of_weight = torch.zeros_like(weight, dtype=torch.float32) if ctx.needs_input_grad[weight_input] else None
        return cls(rows, of_rows, of_weight)

    @property
    def wanted(self) -> bool:
        return self.rows is not None or self.weight is not None

    def add(self, part: slice, grad: Tensor, weight: Tensor) -> None:
        """A chunk's, from the gradient of its product [N, V]."""
        grad = grad.to(weight.dtype)
        if self.rows is not None:
            torch.mm(grad, weight, out=self.rows[part])
        if self.weight is not None and grad.dtype == torch.float32:
            self.weight.addmm_(grad.t(), self.hidden[part])
        elif self.weight is not None:
            self.weight += grad.t() @ self.hidden[part]

    def in_weights_type(self, weight: Tensor) -> Tensor | None:
        return None if self.weight is None else self.weight.to(weight.dtype)

    def scaled(self, factor: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Times a scalar, in place: they are used once."""
        for grad in (self.rows, self.weight):
            if grad is not None:
                grad.mul_(factor)
        return self.rows, self.weight
