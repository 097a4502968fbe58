"""From a schedule to the arrays of a `TokenBatch`.

Legend: T rows, S sequences, R logit rows.
"""

from __future__ import annotations

import numpy as np

from openherd.engine.protocols import I32, TokenBatch
from openherd.engine.scheduler import Chunk
from openherd.engine.taps import tap_rows


class BatchBuilder:
    """Keeps the block tables of running sequences between steps, so that a decode step adds at most one entry."""

    def __init__(self, max_seqs: int, max_blocks: int) -> None:
        self._tables = np.full((max_seqs, max_blocks), -1, np.int32)

    def build(self, chunks: list[Chunk]) -> TokenBatch:
        """The batch of these chunks, in their order; notes in each chunk where its rows and logit rows begin."""
        token_ids: list[int] = []
        positions: list[int] = []
        seq_starts = [0]
        logit_rows: list[int] = []
        for chunk in chunks:
            seq = chunk.seq
            chunk.first_row = len(token_ids)
            chunk.first_logit_row = len(logit_rows)
            token_ids += seq.ids[chunk.start : chunk.end]
            positions += range(chunk.start, chunk.end)
            seq_starts.append(len(token_ids))
            logit_rows += _logit_rows(chunk)
            if seq.num_tabled != len(seq.blocks):
                self._extend_table(chunk)
        return TokenBatch(
            token_ids=np.array(token_ids, np.int32),
            positions=np.array(positions, np.int32),
            seq_starts=np.array(seq_starts, np.int32),
            kv_lens=np.array([chunk.end for chunk in chunks], np.int32),
            block_tables=self._block_tables(chunks),
            adapters=np.array([chunk.seq.request.adapter for chunk in chunks], np.int32),
            logit_rows=np.array(logit_rows, np.int32),
            taps=tap_rows(chunks),
        )

    def _extend_table(self, chunk: Chunk) -> None:
        seq = chunk.seq
        if seq.num_tabled == 0:
            self._tables[seq.slot] = -1
        self._tables[seq.slot, seq.num_tabled : len(seq.blocks)] = seq.blocks[seq.num_tabled :]
        seq.num_tabled = len(seq.blocks)

    def _block_tables(self, chunks: list[Chunk]) -> I32:
        """[1, S, width]: one group, as wide as the longest sequence of the step needs."""
        width = max(len(chunk.seq.blocks) for chunk in chunks)
        return self._tables[[chunk.seq.slot for chunk in chunks], :width][None]


def _logit_rows(chunk: Chunk) -> range:
    """Rows whose logits are wanted: the scored ones, then the one that draws; they are neighbours."""
    after = chunk.first_row + chunk.end - chunk.start
    if chunk.draws:
        return range(after - 1 - chunk.num_scored, after)
    end = chunk.first_row + min(chunk.end, chunk.seq.num_prompt - 1) - chunk.start
    return range(end - chunk.num_scored, end)
