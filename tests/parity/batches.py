"""Token batches as the engine would make them, for tests that drive a backend directly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from openherd.engine.protocols import BLOCK_LEN, TapRows, TokenBatch

I32 = NDArray[np.int32]


@dataclass(frozen=True)
class Rows:
    """One sequence's share of a step: `ids` at positions start, start + 1, ... and the blocks of its whole cache."""

    ids: Sequence[int]
    start: int
    blocks: Sequence[int]
    adapter: int = -1


def token_batch(sequences: Sequence[Rows], taps: tuple[TapRows, ...] = ()) -> TokenBatch:
    """A batch that wants the logits of every row."""
    starts = np.cumsum([0] + [len(s.ids) for s in sequences])
    tables = np.full((1, len(sequences), max(len(s.blocks) for s in sequences)), -1, np.int32)
    for i, s in enumerate(sequences):
        assert len(s.blocks) * BLOCK_LEN >= s.start + len(s.ids), "the blocks do not hold the sequence"
        tables[0, i, : len(s.blocks)] = s.blocks
    return TokenBatch(
        token_ids=np.concatenate([s.ids for s in sequences]).astype(np.int32),
        positions=np.concatenate([s.start + np.arange(len(s.ids)) for s in sequences]).astype(np.int32),
        seq_starts=starts.astype(np.int32),
        kv_lens=np.array([s.start + len(s.ids) for s in sequences], np.int32),
        block_tables=tables,
        adapters=np.array([s.adapter for s in sequences], np.int32),
        logit_rows=np.arange(starts[-1], dtype=np.int32),
        taps=taps,
    )
