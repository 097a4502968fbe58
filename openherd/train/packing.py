"""Rows of documents: which documents share a row, and a step's rows as arrays.

Documents are put together by best-fit decreasing (Ding et al. 2024, "Fewer Truncations Improve Language Modeling",
section 3.2) over all of an epoch at once: the longest first, each into the fullest row that still has room. Since only
lengths matter, documents of one length are placed together, and the work grows with the number of different lengths.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

I64 = NDArray[np.int64]
PADDING = -1  # the document of positions that hold nothing


@dataclass(frozen=True, slots=True)
class PackedRows:
    """Rows [B, T] of documents that must not see each other. Padding has token 0, position 0 and weight 0."""

    token_ids: NDArray[np.int64]
    positions: NDArray[np.int64]  # from 0 in each document
    documents: NDArray[np.int64]  # 0, 1, ... in each row; `PADDING` behind the last
    targets: NDArray[np.int64]  # the token that follows in the same document; 0 where the weight is 0
    weights: NDArray[np.float32]  # 1 where the target is learnt, else 0

    @classmethod
    def empty(cls, rows: int, seq_len: int) -> PackedRows:
        shape = (rows, seq_len)
        ids, positions, targets = (np.zeros(shape, np.int64) for _ in range(3))
        return cls(ids, positions, np.full(shape, PADDING, np.int64), targets, np.zeros(shape, np.float32))

    def __len__(self) -> int:
        return len(self.token_ids)

    def part(self, start: int, stop: int) -> PackedRows:
        """Rows `start` to `stop`, views."""
        return PackedRows(*(getattr(self, field.name)[start:stop] for field in fields(self)))

    def trimmed(self) -> PackedRows:
        """Without the last columns in which every row is padding, views; at least one column stays."""
        used = np.flatnonzero((self.documents != PADDING).any(axis=0))
        width = int(used[-1]) + 1 if len(used) else 1
        return PackedRows(*(getattr(self, field.name)[:, :width] for field in fields(self)))

    def place(self, row: int, column: int, ids: NDArray[np.int32], mask: NDArray[np.uint8]) -> int:
        """One document of n + 1 tokens, n of which are read, at [row, column : column + n]; returns column + n."""
        before = self.documents[row, column - 1] if column else -1
        where = Places(*(np.array([number]) for number in (row, column, before + 1, len(ids) - 1)))
        self.fill(where, ids, mask, np.zeros(1, np.int64))
        return column + len(ids) - 1

    def fill(self, where: Places, tokens: NDArray[np.int32], mask: NDArray[np.uint8], start: I64) -> None:
        """Put documents, or pieces of them, where they belong: of piece i `where.length[i]` tokens are read, from
        tokens[start[i]] on, and each predicts the next, which `mask` says whether to learn."""
        position = _counted(where.length)  # [n] of all tokens to be placed
        to = np.repeat(where.row * self.token_ids.shape[1] + where.column, where.length) + position
        source = np.repeat(start, where.length) + position
        learnt = mask[source + 1] != 0
        for array, values in (
            (self.token_ids, tokens[source]),
            (self.positions, position),
            (self.documents, np.repeat(where.document, where.length)),
            (self.targets, np.where(learnt, tokens[source + 1], 0)),
            (self.weights, learnt),
        ):
            array.reshape(-1)[to] = values


@dataclass(frozen=True, slots=True)
class Places:
    """Where documents lie in rows: [n] each."""

    row: I64
    column: I64  # of the first token
    document: I64  # the number within its row
    length: I64

    @classmethod
    def side_by_side(cls, per_row: Sequence[int], length: I64) -> Places:
        """Documents of these lengths in order, `per_row[i]` of them in row i, from its first column on."""
        row = np.repeat(np.arange(len(per_row)), per_row)
        before = np.cumsum(length) - length
        first_of_row = np.cumsum(per_row) - per_row
        column = before - np.repeat(before[np.minimum(first_of_row, len(before) - 1)], per_row)
        return cls(row, column, _counted(np.asarray(per_row, np.int64)), length)

    def part(self, which: I64) -> Places:
        return Places(self.row[which], self.column[which], self.document[which], self.length[which])


def _counted(counts: I64) -> I64:
    """0 ... n - 1 for every n in `counts`, one after another."""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)


@dataclass(slots=True)
class _Alike:
    """Rows that hold the same lengths. Of run (first, each) row i holds items first + i * each and the next ones."""

    rows: int
    runs: tuple[tuple[int, int], ...] = ()

    def split(self, rows: int) -> _Alike:
        """Take the first `rows` of them away, and return these."""
        taken = _Alike(rows, self.runs)
        self.rows -= rows
        self.runs = tuple((first + rows * each, each) for first, each in self.runs)
        return taken


class RowPlan:
    """Which items (documents, longest first) each row of an epoch holds."""

    def __init__(self, groups: list[_Alike]) -> None:
        self._groups = groups
        self._starts = np.cumsum([0, *(group.rows for group in groups)]).tolist()

    def __len__(self) -> int:
        return int(self._starts[-1])

    def items(self, row: int) -> Iterator[int]:
        """The items of a row, longest first."""
        at = bisect_right(self._starts, row) - 1
        place = row - self._starts[at]
        for first, each in self._groups[at].runs:
            yield from range(first + place * each, first + (place + 1) * each)


def one_in_each(count: int) -> RowPlan:
    """Every item in a row of its own."""
    return RowPlan([_Alike(count, ((0, 1),))])


def best_fit(lengths: NDArray[np.int32], seq_len: int) -> RowPlan:
    """A plan for items of these lengths, which descend from at most `seq_len` to at least 1."""
    open_rows = _OpenRows()
    starts = np.flatnonzero(np.diff(lengths, prepend=seq_len + 1))
    for first, count in zip(starts.tolist(), np.diff(starts, append=len(lengths)).tolist(), strict=True):
        _place(open_rows, int(lengths[first]), first, count, seq_len)
    return RowPlan(open_rows.groups())


class _OpenRows:
    """Rows by the room that is left in them."""

    def __init__(self) -> None:
        self._by_room: dict[int, list[_Alike]] = {}
        self._rooms: list[int] = []  # ascending

    def add(self, room: int, group: _Alike) -> None:
        if room not in self._by_room:
            insort(self._rooms, room)
            self._by_room[room] = []
        self._by_room[room].append(group)

    def fullest(self, length: int) -> tuple[int, _Alike] | None:
        """Take rows out that have room for `length` and as little more as possible."""
        at = bisect_left(self._rooms, length)
        if at == len(self._rooms):
            return None
        room = self._rooms[at]
        group = self._by_room[room].pop()
        if not self._by_room[room]:
            del self._by_room[room], self._rooms[at]
        return room, group

    def groups(self) -> list[_Alike]:
        return [group for room in self._rooms for group in self._by_room[room]]


def _place(open_rows: _OpenRows, length: int, first: int, count: int, seq_len: int) -> None:
    """Items `first` to `first + count`, all of one length. Best fit fills a row as far as it goes before the next."""
    while count:
        found = open_rows.fullest(length)
        room, group = found or (seq_len, _Alike(-(-count // (seq_len // length))))
        for each in (room // length, count % (room // length)):
            rows = min(group.rows, count // each) if each else 0
            if rows:
                filled = group.split(rows)
                filled.runs += ((first, each),)
                open_rows.add(room - each * length, filled)
                first, count = first + rows * each, count - rows * each
        if group.rows:
            open_rows.add(room, group)
