"""The seams of the engine: compute backends below it, processors, noise and taps handed in from above.

The engine knows token ids only. Policy, watermark and grammars reach it through `LogitsProcessor`, `NoiseSource`
and `HiddenTap`; a GPU reaches it through `Backend`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from openherd.checkpoints.source import Adapter, TensorSource
from openherd.config import ModelConfig
from openherd.kernels.ops import TapName

I32: TypeAlias = NDArray[np.int32]
U32: TypeAlias = NDArray[np.uint32]
U64: TypeAlias = NDArray[np.uint64]
F32: TypeAlias = NDArray[np.float32]
TapSite: TypeAlias = tuple[int, TapName]  # (layer, site); layer is ignored for "final"

# Positions in one KV block. Sixteen is one vector of the widest instruction set, so a block's keys are read
# whole; four blocks make one attention tile of 64 absolute positions.
BLOCK_LEN = 16


@dataclass(frozen=True, slots=True)
class KVSpec:
    """How keys and values are stored."""

    dtype: Literal["f16", "f32"] = "f16"
    block_len: int = BLOCK_LEN


@dataclass(frozen=True, slots=True)
class Limits:
    """The largest step the engine will ask for; backends preallocate by it."""

    max_context: int  # positions of one sequence
    max_seqs: int  # sequences in a step
    max_batch_tokens: int  # T
    max_logit_rows: int  # R


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Bytes a backend will take, known from headers alone."""

    weights: int
    scratch: int
    kv_block: int  # one block of BLOCK_LEN positions, all layers


@dataclass(slots=True)
class TapRows:
    """Ask the forward to keep activations at `site` for these rows of the batch."""

    site: TapSite
    rows: I32


@dataclass(slots=True)
class TokenBatch:
    """T rows of S sequences, ragged: prefill chunks and decode steps side by side, a sequence's rows contiguous."""

    token_ids: I32  # [T]
    positions: I32  # [T] absolute
    seq_starts: I32  # [S+1] row where each sequence begins
    kv_lens: I32  # [S] cache length after this step
    block_tables: I32  # [G, S, max_blocks], one group per KV shape; unused entries -1; no block is written twice
    adapters: I32  # [S], -1 none
    logit_rows: I32  # [R] rows whose logits are wanted, ascending
    taps: tuple[TapRows, ...] = ()


class Step(Protocol):
    """A finished forward. Its logits stay with the backend and are valid until the next forward."""

    @property
    def num_logit_rows(self) -> int: ...


@dataclass(slots=True)
class SamplePlan:
    """Draw one token for each of N entries; struct of arrays. Ragged lists are (starts [N+1], values).

    Order: mask, sparse and dense bias, penalties, temperature, top-k, top-p, min-p, then
    argmax(logit / T + Gumbel(key, token id)); ties go to the lowest id. Temperature 0 is argmax of the logits after
    mask, bias and penalties.
    """

    rows: I32  # [N] which logit row of the step (0..R-1)
    temperature: F32  # [N]
    top_k: I32  # [N] 0: all
    top_p: F32  # [N] 1: all
    min_p: F32  # [N] 0: all
    repetition_penalty: F32  # [N] 1: off; for every listed token
    presence_penalty: F32  # [N] for listed tokens whose count > 0
    frequency_penalty: F32  # [N] times the count
    keys: U64  # [N, 2] the draw's key, from the NoiseSource
    count_starts: I32  # [N+1]
    count_ids: I32  # tokens of prompt and answer, only where a penalty is on
    counts: I32  # occurrences in the answer alone
    bias_starts: I32  # [N+1]
    bias_ids: I32
    bias_values: F32
    mask_rows: I32  # [N] row of `masks`, -1 none
    masks: U32  # [M, ceil(V / 32)] bit i of word w set: token 32 w + i is allowed
    dense_rows: I32  # [N] row of `dense`, -1 none
    dense: F32  # [M', V] added to the logits
    num_top: I32  # [N] alternatives to report; -1: not even the drawn token's logprob is needed


@dataclass(slots=True)
class Sampled:
    """What was drawn. Log-probabilities are of the raw logits (log-softmax, no temperature, no mask)."""

    token_ids: I32  # [N]; -1: the rules leave no token, or a logit is NaN or +inf
    logprobs: F32  # [N]; 0 where num_top is -1
    top_ids: I32  # [N, max(num_top)] best first, ties to the lowest id; -1 padding
    top_logprobs: F32  # as top_ids


class Backend(Protocol):
    """The only door to compute."""

    numerics_id: str

    def plan(self, config: ModelConfig, weights: TensorSource, kv: KVSpec, limits: Limits) -> MemoryPlan: ...
    def load(self, config: ModelConfig, weights: TensorSource, kv: KVSpec, limits: Limits, num_blocks: int) -> None: ...
    def load_adapter(self, adapter: Adapter) -> int: ...
    def forward(self, batch: TokenBatch) -> Step: ...
    def sample(self, step: Step, plan: SamplePlan) -> Sampled: ...
    def score(self, step: Step, rows: I32, targets: I32) -> F32:
        """Raw log-probability of targets[i] at logit row rows[i]."""

    def logits(self, step: Step) -> F32:
        """All logits of the step, [R, V]: the slow path."""

    def hidden(self, step: Step, tap: int) -> F32:
        """Activations kept for the batch's taps[tap]: [len(rows), width]."""

    def copy_blocks(self, group: int, pairs: I32) -> None:
        """Copy block pairs[i, 0] over block pairs[i, 1], all layers."""

    def read_blocks(self, group: int, blocks: I32) -> NDArray[np.uint8]:
        """The bytes of blocks, [len(blocks), kv_block]: to save them."""

    def write_blocks(self, group: int, blocks: I32, data: NDArray[np.uint8]) -> None: ...
    def close(self) -> None:
        """Give memory and threads back. Every later call raises."""


@dataclass(frozen=True, slots=True)
class Mask:
    """Only tokens whose bit is set may be drawn: [ceil(V / 32)] uint32."""

    bits: U32


@dataclass(frozen=True, slots=True)
class SparseBias:
    ids: I32
    values: F32


@dataclass(frozen=True, slots=True)
class DenseBias:
    values: F32  # [V]


class LogitsProcessor(Protocol):
    """Shapes the draw of one choice. An exception ends that request only, with FinishReason.ERROR."""

    def next(self, ids: Sequence[int]) -> Mask | SparseBias | DenseBias | None:
        """What to apply before the next draw; `ids` are prompt and answer so far."""

    def accept(self, ids: Sequence[int]) -> None:
        """These tokens were drawn."""

    def rollback(self, n: int) -> None:
        """Forget the last n accepted tokens."""

    def fork(self) -> Self:
        """An independent copy for another choice."""


class NoiseSource(Protocol):
    """Where the draw's key comes from: the watermark's place."""

    def key(self, ids: Sequence[int], choice: int, position: int) -> tuple[int, int]:
        """Two unsigned 64-bit numbers. `position` is the absolute position of the token to be drawn."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A tap's word that its sequence must end, and why."""

    reason: str


class HiddenTap(Protocol):
    """Reads activations: probes, pooled embeddings, importance matrices."""

    sites: tuple[TapSite, ...]
    rows: Literal["last", "new", "all"]  # "all" skips prefix-cache lookup, so that every position is computed

    def observe(self, seq_id: int, positions: I32, hidden: Mapping[TapSite, F32]) -> Verdict | None: ...
