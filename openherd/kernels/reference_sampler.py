"""The oracle of sampling: one row of logits, one draw, in float64 and in the documented order.

mask -> bias -> penalties -> temperature -> top-k -> top-p -> min-p -> argmax(logit / T + Gumbel(key, token id)).
That argmax draws from the softmax of what is left (Gumbel 1954; Maddison et al. 2014, "A* Sampling", section 2). Equal
candidates are ranked by token id, lowest first. A native sampler picks the same token unless float32 rounding
moves a candidate over a border of top-p or min-p, or makes two scores meet.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from openherd.kernels.philox import gumbel

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I32 = NDArray[np.int32]
U32 = NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class Draw:
    """How one token is drawn; the fields are those of one entry of the engine's SamplePlan."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    key: tuple[int, int] = (0, 0)
    count_ids: I32 = field(default_factory=lambda: np.empty(0, np.int32))
    counts: I32 = field(default_factory=lambda: np.empty(0, np.int32))
    bias_ids: I32 = field(default_factory=lambda: np.empty(0, np.int32))
    bias_values: F32 = field(default_factory=lambda: np.empty(0, np.float32))
    mask: U32 | None = None  # [ceil(V / 32)]
    dense: F32 | None = None  # [V]


def draw_token(logits: F32, draw: Draw) -> int:
    """The token drawn from raw `logits` [V]; -1 when mask and biases leave none, or a logit is NaN or +inf."""
    x = _shaped(logits, draw)
    if not (np.isfinite(np.max(logits)) and np.isfinite(np.max(x))):
        return -1
    if draw.temperature == 0:
        return int(np.argmax(x))
    x = x / np.float64(draw.temperature)
    ranked = np.lexsort((np.arange(len(x)), -x))  # best first, ties to the lowest id
    kept = ranked[: draw.top_k or len(x)]
    kept = _min_p(x, _top_p(x, kept, draw.top_p), draw.min_p)
    kept = np.sort(kept)  # argmax takes the first of equals: the lowest id
    return int(kept[np.argmax(x[kept] + gumbel(draw.key, len(x))[kept])])


def log_softmax(logits: F32) -> F64:
    """Natural log-probabilities of raw logits along the last axis."""
    x = logits.astype(np.float64)
    x = x - x.max(axis=-1, keepdims=True)
    shifted: F64 = x - np.log(np.exp(x).sum(axis=-1, keepdims=True))
    return shifted


def _shaped(logits: F32, draw: Draw) -> F64:
    """Logits after mask, biases and penalties."""
    x = logits.astype(np.float64)
    if draw.mask is not None:
        x[~allowed_tokens(draw.mask, len(x))] = -np.inf
    np.add.at(x, draw.bias_ids, draw.bias_values)
    if draw.dense is not None:
        x += draw.dense
    seen = x[draw.count_ids]
    seen = np.where(seen > 0, seen / draw.repetition_penalty, seen * draw.repetition_penalty)
    answered = draw.presence_penalty * (draw.counts > 0) + draw.frequency_penalty * draw.counts
    x[draw.count_ids] = seen - answered
    return x


def allowed_tokens(mask: U32, n_tokens: int) -> NDArray[np.bool_]:
    """Bit i of word w says whether token 32 w + i may be drawn: [ceil(V / 32)] -> [V] bool."""
    bits = (mask[:, None] >> np.arange(32, dtype=np.uint32)) & 1
    return bits.reshape(-1)[:n_tokens].astype(bool)


def _top_p(x: F64, ranked: NDArray[np.intp], top_p: float) -> NDArray[np.intp]:
    """The shortest best-first run whose probabilities reach top_p (Holtzman et al. 2020, eq. 2); at least one."""
    if top_p >= 1:
        return ranked
    reached = np.cumsum(np.exp(x[ranked] - x[ranked[0]]))
    return ranked[: int(np.searchsorted(reached, top_p * reached[-1])) + 1]


def _min_p(x: F64, ranked: NDArray[np.intp], min_p: float) -> NDArray[np.intp]:
    """Those at least min_p times as likely as the likeliest (Nguyen et al. 2024, section 3)."""
    likely: NDArray[np.bool_] = np.exp(x[ranked] - x[ranked[0]]) >= min_p
    return ranked[likely]
