"""All logits of a text's positions, computed on the backend itself: what compares distributions, not answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count

import numpy as np

from openherd.checkpoints.source import Checkpoint
from openherd.engine.backends import make_backend
from openherd.engine.loading import MAX_SCORE_ROWS, load_on
from openherd.engine.protocols import BLOCK_LEN, F32, Backend, TokenBatch
from openherd.options import EngineOptions


class ModelLogits:
    """One loaded model. Keys and values are float32: what is compared is the weights."""

    def __init__(self, backend: Backend, checkpoint: Checkpoint, context: int, threads: int | None) -> None:
        options = EngineOptions(
            context=context, threads=threads, kv_dtype="f32", max_seqs=1, max_batch_tokens=MAX_SCORE_ROWS
        )
        load_on(backend, checkpoint.config, checkpoint.tensors, options)
        self._backend = backend

    def __call__(self, ids: Sequence[int]) -> Iterator[F32]:
        """[R, V] for each run of at most MAX_SCORE_ROWS positions; an array is valid until the next is taken."""
        blocks = np.arange(-(-len(ids) // BLOCK_LEN), dtype=np.int32)
        for start in count(0, MAX_SCORE_ROWS):
            rows = ids[start : start + MAX_SCORE_ROWS]
            if not rows:
                return
            yield self._backend.logits(self._backend.forward(_batch(rows, start, blocks)))


@contextmanager
def open_logits(checkpoint: Checkpoint, context: int, threads: int | None) -> Iterator[ModelLogits]:
    """Raises `CapacityError` when the model does not fit the memory."""
    backend = make_backend("native", threads)
    try:
        yield ModelLogits(backend, checkpoint, context, threads)
    finally:
        backend.close()


def _batch(ids: Sequence[int], start: int, blocks: np.ndarray[tuple[int], np.dtype[np.int32]]) -> TokenBatch:
    """One sequence's positions from `start` on, every row's logits wanted."""
    end = start + len(ids)
    return TokenBatch(
        token_ids=np.array(ids, np.int32),
        positions=np.arange(start, end, dtype=np.int32),
        seq_starts=np.array([0, len(ids)], np.int32),
        kv_lens=np.array([end], np.int32),
        block_tables=blocks[None, None, :],
        adapters=np.array([-1], np.int32),
        logit_rows=np.arange(len(ids), dtype=np.int32),
    )
