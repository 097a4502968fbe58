"""A backend without a model whose KV cache holds the tokens themselves.

Each forward writes the batch's tokens where the block tables say, then reads every sequence's whole past back through
them; the next token is a hash of what was read. A block that is shared, copied, evicted or handed over wrongly changes
the answer, and `expected_answer` knows the right one without any cache. Fast enough for thousands of requests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from openherd.checkpoints.source import Adapter, TensorSource
from openherd.config import ModelConfig
from openherd.engine.engine import Engine
from openherd.engine.protocols import (
    F32,
    I32,
    KVSpec,
    Limits,
    MemoryPlan,
    Sampled,
    SamplePlan,
    Step,
    TokenBatch,
)
from openherd.engine.speculate import Drafter, PromptLookup
from openherd.options import EngineOptions

VOCAB = 997
CONFIG = ModelConfig("llama", 16, 2, 2, 1, 8, 16, vocab_size=VOCAB, max_seq_len=4096)
KV_BLOCK_BYTES = 64


def next_token(ids: tuple[int, ...], key: tuple[int, int]) -> int:
    digest = blake2b(np.array([*ids, key[0] % 2**32, key[1] % 2**32, key[1] >> 32], np.int64).tobytes()).digest()
    return int.from_bytes(digest[:8], "little") % VOCAB


def expected_answer(prompt: tuple[int, ...], seed: int, num_tokens: int, choice: int = 0) -> list[int]:
    """What a request must answer, by definition."""
    ids = prompt
    for _ in range(num_tokens):
        ids += (next_token(ids, (seed, choice << 32 | len(ids))),)
    return list(ids[len(prompt) :])


def expected_score(ids: tuple[int, ...]) -> float:
    """The fake log-probability of the last of these tokens, given those before it."""
    return -float(next_token(ids, (0, 0)))


@dataclass
class TokenCacheStep:
    pasts: list[tuple[int, ...]]  # of each logit row, up to and with its token

    @property
    def num_logit_rows(self) -> int:
        return len(self.pasts)


class TokenCacheBackend:
    """`Backend`. `fail_next` makes the next forward raise, as a backend out of memory would."""

    def __init__(self) -> None:
        self.numerics_id = "token-cache"
        self.fail_next = False
        self.is_closed = False
        self.num_batches_of_eight = 0
        self._tapped: list[F32] = []

    def plan(self, config: ModelConfig, weights: TensorSource, kv: KVSpec, limits: Limits) -> MemoryPlan:
        return MemoryPlan(weights=0, scratch=0, kv_block=KV_BLOCK_BYTES)

    def load(self, config: ModelConfig, weights: TensorSource, kv: KVSpec, limits: Limits, num_blocks: int) -> None:
        self._limits = limits
        self._cache = np.full((num_blocks, kv.block_len), -1, np.int64)

    def load_adapter(self, adapter: Adapter) -> int:
        return 0

    def forward(self, batch: TokenBatch) -> TokenCacheStep:
        if self.fail_next:
            self.fail_next = False
            raise MemoryError("no memory for the step")
        self._check(batch)
        block_len = self._cache.shape[1]
        pasts: dict[int, tuple[int, ...]] = {}
        for s, kv_len in enumerate(batch.kv_lens):
            table = batch.block_tables[0, s]
            rows = range(batch.seq_starts[s], batch.seq_starts[s + 1])
            for row in rows:
                position = batch.positions[row]
                self._cache[table[position // block_len], position % block_len] = batch.token_ids[row]
            past = tuple(self._cache[table[: -(-kv_len // block_len)]].reshape(-1)[:kv_len].tolist())
            assert -1 not in past, "a position was read that nobody wrote"
            pasts |= {row: past[: batch.positions[row] + 1] for row in rows}
        self._tapped = [batch.positions[tap.rows].astype(np.float32)[:, None] for tap in batch.taps]
        self.num_batches_of_eight += len(batch.kv_lens) >= 8
        return TokenCacheStep([pasts[row] for row in batch.logit_rows.tolist()])

    def sample(self, step: Step, plan: SamplePlan) -> Sampled:
        assert isinstance(step, TokenCacheStep)
        keys = plan.keys.tolist()
        tokens = [next_token(step.pasts[row], tuple(keys[i])) for i, row in enumerate(plan.rows.tolist())]
        empty = np.zeros((len(tokens), 0))
        return Sampled(
            np.array(tokens, np.int32), np.zeros(len(tokens), np.float32), empty.astype(np.int32), empty.astype("f4")
        )

    def score(self, step: Step, rows: I32, targets: I32) -> F32:
        assert isinstance(step, TokenCacheStep)
        pairs = zip(rows.tolist(), targets.tolist(), strict=True)
        return np.array([expected_score((*step.pasts[row], target)) for row, target in pairs], np.float32)

    def logits(self, step: Step) -> F32:
        raise NotImplementedError("there are no logits without a model")

    def hidden(self, step: Step, tap: int) -> F32:
        return self._tapped[tap]

    def copy_blocks(self, group: int, pairs: I32) -> None:
        for source, target in pairs.tolist():
            self._cache[target] = self._cache[source]

    def read_blocks(self, group: int, blocks: I32) -> NDArray[np.uint8]:
        return self._cache[blocks].view(np.uint8)

    def write_blocks(self, group: int, blocks: I32, data: NDArray[np.uint8]) -> None:
        self._cache[blocks] = data.view(np.int64)

    def close(self) -> None:
        self.is_closed = True

    def _check(self, batch: TokenBatch) -> None:
        """The batch is within the limits that backends preallocate by, and well formed."""
        limits = self._limits
        assert 0 < len(batch.token_ids) <= limits.max_batch_tokens
        assert 0 < len(batch.kv_lens) <= limits.max_seqs
        assert len(batch.logit_rows) <= limits.max_logit_rows
        assert batch.kv_lens.max() <= limits.max_context
        assert (np.diff(batch.seq_starts) > 0).all()
        assert (np.diff(batch.logit_rows) > 0).all()
        assert (batch.positions[batch.seq_starts[1:] - 1] + 1 == batch.kv_lens).all()
        for array in (batch.token_ids, batch.positions, batch.seq_starts, batch.kv_lens, batch.block_tables):
            assert array.dtype == np.int32
            assert array.flags.c_contiguous


def token_cache_engine(
    *,
    backend: TokenCacheBackend | None = None,
    num_blocks: int = 64,
    context: int = 256,
    max_seqs: int = 16,
    max_batch_tokens: int = 64,
    prefix_caching: bool = True,
    stop_ids: tuple[int, ...] = (),
    make_drafter: Callable[[], Drafter] = PromptLookup,
) -> Engine:
    options = EngineOptions(
        context=context,
        kv_memory=num_blocks * KV_BLOCK_BYTES,
        max_seqs=max_seqs,
        max_batch_tokens=max_batch_tokens,
        prefix_caching=prefix_caching,
    )
    return Engine(
        backend or TokenCacheBackend(), CONFIG, {}, options=options, stop_ids=stop_ids, make_drafter=make_drafter
    )
