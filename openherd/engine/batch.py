"""From a schedule to the arrays of a `TokenBatch`.

Legend: T rows, S sequences, R logit rows.
"""

from __future__ import annotations

import numpy as np

from openherd.engine.kept import KeptArray
from openherd.engine.protocols import I32, TokenBatch
from openherd.engine.scheduler import Chunk
from openherd.engine.taps import tap_rows


class BatchBuilder:
    """Keeps what does not change from step to step: tables of blocks, and the arrays of the same sequences decoding."""

    def __init__(self, max_seqs: int, max_blocks: int) -> None:
        self._tables = np.full((max_seqs, max_blocks), -1, np.int32)
        self._slots: list[int] = []  # of the last batch's sequences
        self._shown = self._tables[None, :0]  # its `block_tables`
        self._seq_starts, self._adapters, self._logit_rows = KeptArray(), KeptArray(), KeptArray()

    def build(self, chunks: list[Chunk]) -> TokenBatch:
        """The batch of these chunks, in their order; notes in each chunk where its rows and logit rows begin."""
        token_ids: list[int] = []
        positions: list[int] = []
        seq_starts = [0]
        logit_rows: list[int] = []
        extended = False
        for chunk in chunks:
            seq = chunk.seq
            chunk.first_row = len(token_ids)
            chunk.first_logit_row = len(logit_rows)
            token_ids += seq.ids[chunk.start : chunk.end]
            token_ids += chunk.drafts
            positions += range(chunk.start, chunk.start + chunk.num_rows)
            seq_starts.append(len(token_ids))
            logit_rows += _logit_rows(chunk)
            if seq.num_tabled != len(seq.blocks):
                self._extend_table(chunk)
                extended = True
        return TokenBatch(
            token_ids=np.array(token_ids, np.int32),
            positions=np.array(positions, np.int32),
            seq_starts=self._seq_starts.of(seq_starts),
            kv_lens=np.array([chunk.start + chunk.num_rows for chunk in chunks], np.int32),
            block_tables=self._block_tables(chunks, extended),
            adapters=self._adapters.of([chunk.seq.request.adapter for chunk in chunks]),
            logit_rows=self._logit_rows.of(logit_rows),
            taps=tap_rows(chunks),
        )

    def _extend_table(self, chunk: Chunk) -> None:
        seq = chunk.seq
        self._tables[seq.slot, seq.num_tabled : len(seq.blocks)] = seq.blocks[seq.num_tabled :]
        self._tables[seq.slot, len(seq.blocks) :] = -1
        seq.num_tabled = len(seq.blocks)

    def _block_tables(self, chunks: list[Chunk], extended: bool) -> I32:
        """[1, S, width]: one group, as wide as the longest sequence of the step needs.

        Those of the last batch if it had the same sequences and no table was `extended` since.
        """
        slots = [chunk.seq.slot for chunk in chunks]
        if extended or slots != self._slots:
            width = max(len(chunk.seq.blocks) for chunk in chunks)
            self._slots, self._shown = slots, self._tables[slots, :width][None]
        return self._shown


def _logit_rows(chunk: Chunk) -> range:
    """Rows whose logits are wanted: the scored ones, the one that draws, then those of drafts; they are neighbours."""
    after = chunk.first_row + chunk.num_rows
    if chunk.draws:
        return range(after - 1 - chunk.num_scored - chunk.num_drafted, after)
    end = chunk.first_row + min(chunk.end, chunk.seq.num_prompt - 1) - chunk.start
    return range(end - chunk.num_scored, end)
