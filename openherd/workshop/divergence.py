"""How far one model's next-token distributions are from another's, over a text.

Kullback and Leibler's divergence KL(A || B), in nats a token: what is lost by coding A's text with B's probabilities.
Texts are read in independent chunks; every position of a chunk counts. Intervals are of 95 %, from the spread between
chunks (positions of one chunk are not independent), by the normal approximation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openherd.engine.protocols import F32
from openherd.errors import EngineError

F64 = NDArray[np.float64]
Logits = Callable[[Sequence[int]], Iterable[F32]]  # of a chunk's positions, in blocks [R, V], each for a while


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean and half the width of its 95 % interval; None where there is one chunk only."""

    mean: float
    interval: float | None


@dataclass(frozen=True, slots=True)
class Divergence:
    positions: int
    chunks: int
    kl: Estimate  # nats a token
    kl_median: float
    kl_p99: float
    kl_max: float
    same_top: Estimate  # share of positions at which both have the same likeliest token
    nll_a: float  # of the text's own next tokens, nats
    nll_b: float


def diverge(
    a: Logits,
    b: Logits,
    chunks: Sequence[Sequence[int]],
    on_chunk: Callable[[int, int], None] = lambda done, total: None,
) -> Divergence:
    """Raises `EngineError` when a logit is not a finite number."""
    kl, same, nll = [], [], []
    for done, chunk in enumerate(chunks):
        rows = [_compare(*block) for block in _aligned(a(chunk), b(chunk), chunk)]
        kl.append(np.concatenate([row[0] for row in rows]))
        same.append(np.concatenate([row[1] for row in rows]))
        nll.append(np.concatenate([row[2] for row in rows], axis=1))
        on_chunk(done + 1, len(chunks))
    everywhere, means = np.concatenate(kl), np.concatenate(nll, axis=1).mean(axis=1)
    return Divergence(
        positions=len(everywhere),
        chunks=len(chunks),
        kl=_estimate(kl),
        kl_median=float(np.median(everywhere)),
        kl_p99=float(np.quantile(everywhere, 0.99)),
        kl_max=float(everywhere.max()),
        same_top=_estimate([chunk.astype(np.float64) for chunk in same]),
        nll_a=float(means[0]),
        nll_b=float(means[1]),
    )


def _aligned(a: Iterable[F32], b: Iterable[F32], chunk: Sequence[int]) -> Iterator[tuple[F32, F32, NDArray[np.int64]]]:
    """Blocks of both models with the ids that follow their rows; the last row of a chunk has none: -1."""
    following, start = np.array([*chunk[1:], -1]), 0
    for of_a, of_b in zip(a, b, strict=True):
        yield of_a, of_b, following[start : start + len(of_a)]
        start += len(of_a)


def _compare(a: F32, b: F32, targets: NDArray[np.int64]) -> tuple[F64, NDArray[np.bool_], F64]:
    """KL [R], same top token [R], and the negative log-likelihoods of the targets [2, <= R]."""
    a, b = a - a.max(axis=1, keepdims=True), b - b.max(axis=1, keepdims=True)
    exp_a = np.exp(a)
    total_a, total_b = exp_a.sum(axis=1, dtype=np.float64), np.exp(b).sum(axis=1, dtype=np.float64)
    log_a, log_b = np.log(total_a), np.log(total_b)
    kl = np.einsum("rv,rv->r", exp_a, a - b, dtype=np.float64) / total_a - log_a + log_b
    if not np.isfinite(kl).all():
        raise EngineError("a model's logits are not finite numbers; weights that are damaged or not numbers do that")
    rows = np.flatnonzero(targets >= 0)
    wanted = targets[rows]
    nll = np.stack([log_a[rows] - a[rows, wanted], log_b[rows] - b[rows, wanted]])
    return np.maximum(kl, 0.0), a.argmax(axis=1) == b.argmax(axis=1), nll


def _estimate(chunks: Sequence[F64]) -> Estimate:
    means = np.array([chunk.mean() for chunk in chunks])
    spread = 1.96 * float(means.std(ddof=1)) / math.sqrt(len(means)) if len(means) > 1 else None
    return Estimate(float(np.concatenate(list(chunks)).mean()), spread)


def lines(found: Divergence) -> Iterator[str]:
    yield (
        f"  mean KL          {_spelled(found.kl, '.5f')} nats a token"
        f" (median {found.kl_median:.5f}, 99 % {found.kl_p99:.4f}, most {found.kl_max:.3f})"
    )
    yield f"  same top token   {_spelled(found.same_top, '.2%')}"
    yield f"  text's loss      {found.nll_b:.4f} nats a token, {found.nll_b - found.nll_a:+.4f}"


def _spelled(estimate: Estimate, form: str) -> str:
    interval = "" if estimate.interval is None else f" +- {estimate.interval:{form}}"
    return f"{estimate.mean:{form}}{interval}"


def document(found: Divergence) -> dict[str, Any]:
    return {
        "positions": found.positions,
        "chunks": found.chunks,
        "mean_kl": found.kl.mean,
        "mean_kl_interval": found.kl.interval,
        "median_kl": found.kl_median,
        "kl_p99": found.kl_p99,
        "max_kl": found.kl_max,
        "same_top": found.same_top.mean,
        "same_top_interval": found.same_top.interval,
        "nll_a": found.nll_a,
        "nll_b": found.nll_b,
    }
