"""Documents cut to what a row can hold.

A document of n tokens has n - 1 positions, each of which predicts the next token. Plain text (every token learnt) that
is longer than a row is cut into pieces that follow each other, so that every token is still learnt once; a piece does
not see the ones before it, and the cuts are the same in every epoch. A conversation keeps its first `seq_len`
positions, since its end means nothing without its beginning; where nothing would be learnt of it then, it is left out.
All of this is counted in `Cuts`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from openherd.train.token_file import TokenFolder

_STRETCH = 1 << 20  # tokens that are counted at once: 8 MiB
I64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Cuts:
    """What cutting did to the documents of some folders."""

    split: int = 0  # plain texts that became several pieces
    truncated: int = 0  # documents that lost their end
    lost_tokens: int = 0  # learnt tokens that went with it, those of documents left out included
    left_out: int = 0  # documents of which nothing is learnt; of preferences, pairs

    def __add__(self, other: Cuts) -> Cuts:
        return Cuts(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))


@dataclass(frozen=True, slots=True)
class Pieces:
    """Piece i reads tokens [start, start + length) of its folder and predicts each one's successor."""

    start: I64  # [n]
    length: NDArray[np.int32]  # [n] from 1 to seq_len
    document: I64  # [n] ascending
    cuts: Cuts

    def __len__(self) -> int:
        return len(self.start)


def cut(folder: TokenFolder, seq_len: int) -> Pieces:
    """Of every document of a folder, in order."""
    documents = _Documents(folder)
    plain = documents.learnt == documents.positions
    counts = np.where(plain, -(-documents.positions // seq_len), 1)
    kept, lost = _kept(documents, np.where(plain, documents.positions, seq_len), folder)
    counts[~kept] = 0
    document = np.repeat(np.arange(len(folder)), counts)
    offset = seq_len * (np.arange(len(document)) - np.repeat(np.cumsum(counts) - counts, counts))
    length = np.minimum(documents.positions[document] - offset, seq_len).astype(np.int32)
    cuts = Cuts(
        split=int((counts > 1).sum()),
        truncated=int((kept & ~plain & (documents.positions > seq_len)).sum()),
        lost_tokens=lost,
        left_out=int((~kept).sum()),
    )
    return Pieces(folder.ends[:-1][document] + offset, length, document, cuts)


def cut_pairs(folder: TokenFolder, seq_len: int) -> Pieces:
    """Of preferences: one piece a document, 2i and 2i + 1 of one pair. A pair is left out with either of its ends."""
    documents = _Documents(folder)
    kept, lost = _kept(documents, np.full(len(folder), seq_len), folder)
    pairs = kept.reshape(-1, 2).all(axis=1)
    document = np.flatnonzero(np.repeat(pairs, 2))
    positions = documents.positions[document]
    cuts = Cuts(truncated=int((positions > seq_len).sum()), lost_tokens=lost, left_out=int((~pairs).sum()))
    return Pieces(folder.ends[:-1][document], np.minimum(positions, seq_len).astype(np.int32), document, cuts)


class _Documents:
    """Positions of each document, and how many of them are learnt."""

    def __init__(self, folder: TokenFolder) -> None:
        self.positions = np.diff(folder.ends) - 1
        self.learnt = np.diff(_learnt_before(folder.ends, folder.mask))
        self.learnt -= folder.mask[folder.ends[:-1]] != 0  # nothing predicts a first token


def _learnt_before(ends: I64, mask: NDArray[np.uint8]) -> I64:
    """How many tokens before each of `ends`, which ascend to the end of `mask`, are learnt; a stretch at a time."""
    counts = np.zeros(len(ends), np.int64)
    total = 0
    for first in range(0, len(mask), _STRETCH):
        summed = np.cumsum(mask[first : first + _STRETCH] != 0, dtype=np.int64)
        begin, end = np.searchsorted(ends, (first + 1, first + len(summed) + 1))
        counts[begin:end] = total + summed[ends[begin:end] - first - 1]
        total += int(summed[-1])
    return counts


def _kept(documents: _Documents, limits: I64, folder: TokenFolder) -> tuple[NDArray[np.bool_], int]:
    """Which documents have anything to learn in their first `limits` positions, and how much is learnt beyond them."""
    learnt = documents.learnt.copy()
    for long in np.flatnonzero(documents.positions > limits).tolist():
        first = int(folder.ends[long]) + 1
        learnt[long] = np.count_nonzero(folder.mask[first : first + int(limits[long])])
    return learnt > 0, int((documents.learnt - learnt).sum())
