"""Native backends over small models made in memory, and batches for them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from openherd.checkpoints.source import Tensor
from openherd.config import ModelConfig
from openherd.engine.native_backend import NativeBackend
from openherd.engine.protocols import Backend, KVSpec, Limits, SamplePlan, TapRows, TokenBatch
from tests.parity.random_llama import float_source, tensor_shapes

LIMITS = Limits(max_context=512, max_seqs=16, max_batch_tokens=256, max_logit_rows=256)
NUM_BLOCKS = 128


def loaded(backend: Backend, config: ModelConfig, weights: dict[str, Tensor], kv: KVSpec | None = None) -> Backend:
    backend.load(config, weights, kv or KVSpec("f32"), LIMITS, NUM_BLOCKS)
    return backend


def batch_of(
    chunks: Sequence[tuple[Sequence[int], int, Sequence[int]]],
    *,
    adapters: Sequence[int] | None = None,
    logit_rows: Sequence[int] | None = None,
    taps: tuple[TapRows, ...] = (),
) -> TokenBatch:
    """A step of (token ids, first position, blocks) for each sequence; logits of every row unless `logit_rows` says."""
    lengths = [len(ids) for ids, _, _ in chunks]
    num_rows = sum(lengths)
    width = max(len(blocks) for _, _, blocks in chunks)
    tables = np.full((1, len(chunks), width), -1, np.int32)
    for i, (_, _, blocks) in enumerate(chunks):
        tables[0, i, : len(blocks)] = blocks
    return TokenBatch(
        token_ids=np.array([t for ids, _, _ in chunks for t in ids], np.int32),
        positions=np.array([start + i for ids, start, _ in chunks for i in range(len(ids))], np.int32),
        seq_starts=np.array([0, *np.cumsum(lengths)], np.int32),
        kv_lens=np.array([start + len(ids) for ids, start, _ in chunks], np.int32),
        block_tables=tables,
        adapters=np.array(adapters if adapters is not None else [-1] * len(chunks), np.int32),
        logit_rows=np.array(range(num_rows) if logit_rows is None else logit_rows, np.int32),
        taps=taps,
    )


class LogitSource:
    """A backend whose next step has the logits you give: tokens are one-hot, and the head's columns are the rows."""

    def __init__(self, logits: NDArray[np.float32], threads: int = 2) -> None:
        n, vocab = logits.shape
        config = ModelConfig("llama", n, 1, 1, 1, 2, 1, vocab, 64, norm_eps=1e-12)
        weights = {name: np.zeros(shape, np.float32) for name, shape in tensor_shapes(config).items()}
        weights["model.embed_tokens.weight"][np.arange(n), np.arange(n)] = 1
        weights["model.norm.weight"][:] = 1 / np.sqrt(n)
        weights["lm_head.weight"][:] = logits.T
        self.backend = NativeBackend(threads)
        self.backend.load(config, float_source(weights), KVSpec(), Limits(64, 1, n, n), 4)
        self.step = self.backend.forward(batch_of([(range(n), 0, range(4))]))
        self.logits = self.backend.logits(self.step)


def plan_of(n: int, vocab: int, **arrays: object) -> SamplePlan:
    """A plan of n greedy draws without extras, from rows 0..n-1; `arrays` replace its fields."""
    ints, floats = np.zeros(n, np.int32), np.zeros(n, np.float32)
    fields: dict[str, object] = {
        "rows": np.arange(n, dtype=np.int32),
        "temperature": floats,
        "top_k": ints,
        "top_p": floats + 1,
        "min_p": floats,
        "repetition_penalty": floats + 1,
        "presence_penalty": floats,
        "frequency_penalty": floats,
        "keys": np.zeros((n, 2), np.uint64),
        "count_starts": np.zeros(n + 1, np.int32),
        "count_ids": np.zeros(0, np.int32),
        "counts": np.zeros(0, np.int32),
        "bias_starts": np.zeros(n + 1, np.int32),
        "bias_ids": np.zeros(0, np.int32),
        "bias_values": np.zeros(0, np.float32),
        "mask_rows": ints - 1,
        "masks": np.zeros((0, (vocab + 31) // 32), np.uint32),
        "dense_rows": ints - 1,
        "dense": np.zeros((0, vocab), np.float32),
        "num_top": ints - 1,
    }
    return SamplePlan(**(fields | arrays))
