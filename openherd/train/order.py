"""The order of the data: a pure function of (seed, step), whatever the number of processes and micro-batches.

An epoch draws from every source as often as its weight says: each document once for 1, twice for 2, and for 0.5 half
of them in one epoch and the other half in the next. What it draws is shuffled, put together in rows (see `packing`),
and the rows are shuffled; epochs follow each other without a gap, so that every step is full. Going to any step takes
the time of laying out one epoch, with whole weights; with others, of each epoch up to it.

Shuffles sort random numbers of a counter-based generator (Philox; Salmon et al. 2011) whose key is a hash of the seed
and of what is shuffled: NumPy keeps these numbers the same in all its versions, which it does not promise of its own
`permutation`. Memory: some 60 bytes for each piece of a document, besides the mapped files.
"""

from __future__ import annotations

import hashlib
import json
import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from operator import add

import numpy as np
from numpy.typing import NDArray

from openherd.errors import InputError, OptionError
from openherd.train.packing import PackedRows, Places, RowPlan, best_fit, one_in_each
from openherd.train.pieces import Pieces, cut, cut_pairs
from openherd.train.token_file import Kind, TokenFolder

RULES = 1
"""Goes into every fingerprint; counts up when the same data, settings and seed come in another order."""

I64 = NDArray[np.int64]


class DataOrder:
    """Rows of documents, for pretraining and fine-tuning."""

    def __init__(
        self, folders: Sequence[TokenFolder], *, seq_len: int, rows_per_step: int, seed: int, pack: bool = True
    ) -> None:
        """Raises InputError for folders that hold nothing to learn, other kinds or ids of different tokenizers."""
        self.seq_len, self.rows_per_step, self.seed = seq_len, rows_per_step, seed
        self._data = _Data(folders, "documents", seq_len, cut)
        self._mixture = Mixture(self._data.shares(1), seed)
        self._pack = pack
        self._first_rows = [0]  # of each epoch that was looked at, and of the one behind
        self._lay_out(0)
        self.rows_per_epoch = len(self._plan)
        """Rows of the first epoch; with whole weights, of each."""
        self.efficiency = float(self._data.length[self._pieces].sum(dtype=np.int64)) / (len(self._plan) * seq_len)
        """The share of positions in the first epoch's rows that hold a token."""
        self.cuts = self._data.cuts
        """What became of documents that are longer than a row."""
        self.fingerprint = self._data.fingerprint(rows_per_step=rows_per_step, seed=seed, pack=pack)

    def rows(self, step: int) -> PackedRows:
        """All rows of a step, [rows_per_step, seq_len]; ranks and micro-batches take parts of it."""
        pieces, per_row = [], []
        for row in range(step * self.rows_per_step, (step + 1) * self.rows_per_step):
            items = self._items_of(row)
            pieces.append(self._pieces[items])
            per_row.append(len(items))
        return self._data.rows(np.concatenate(pieces), per_row)

    def _items_of(self, row: int) -> list[int]:
        """Which pieces of its epoch, which is laid out, a row holds; it is counted from the start of training."""
        place = self._go_to(row)
        return list(self._plan.items(int(self._shuffled_rows[place])))

    def _go_to(self, row: int) -> int:
        """Lay out the epoch that has the row, counted from the start of training; returns its place there."""
        if self._mixture.is_whole:
            epoch, place = divmod(row, self.rows_per_epoch)
            self._require(epoch)
            return place
        while row >= self._first_rows[-1]:
            self._require(len(self._first_rows) - 1)
            self._first_rows.append(self._first_rows[-1] + len(self._plan))
        epoch = bisect_right(self._first_rows, row) - 1
        self._require(epoch)
        return row - self._first_rows[epoch]

    def _require(self, epoch: int) -> None:
        if epoch != self._epoch:
            self._lay_out(epoch)

    def _lay_out(self, epoch: int) -> None:
        pieces = self._mixture.drawn(epoch)
        self._pieces = pieces[np.argsort(-self._data.length[pieces], kind="stable")]
        self._plan: RowPlan = (
            best_fit(self._data.length[self._pieces], self.seq_len) if self._pack else one_in_each(len(pieces))
        )
        self._shuffled_rows = shuffled(len(self._plan), self.seed, "rows", epoch)
        self._epoch = epoch


class PairOrder:
    """Preference pairs, one document a row: rows 2i and 2i + 1 are the chosen and the rejected end of pair i."""

    def __init__(self, folders: Sequence[TokenFolder], *, seq_len: int, pairs_per_step: int, seed: int) -> None:
        """Raises InputError for folders that hold no pair to learn from, other kinds or ids of different tokenizers."""
        self._data = _Data(folders, "preferences", seq_len, cut_pairs)
        self._mixture = Mixture(self._data.shares(2), seed)
        self._epoch = -1
        self.seq_len, self.pairs_per_step, self.seed = seq_len, pairs_per_step, seed
        self.pairs_per_epoch = self._mixture.drawn_before(1)
        """Pairs of the first epoch."""
        self.cuts = self._data.cuts
        """What became of answers that are longer than a row."""
        self.fingerprint = self._data.fingerprint(pairs_per_step=pairs_per_step, seed=seed)

    def rows(self, step: int) -> PackedRows:
        """All rows of a step, [2 * pairs_per_step, seq_len]."""
        first = step * self.pairs_per_step
        pairs = np.array([self._pair(index) for index in range(first, first + self.pairs_per_step)])
        return self._data.rows(np.stack([2 * pairs, 2 * pairs + 1], axis=1).reshape(-1), [1] * (2 * len(pairs)))

    def _pair(self, index: int) -> int:
        epoch = self._mixture.epoch_of(index)
        if epoch != self._epoch:
            self._pairs, self._epoch = self._mixture.drawn(epoch), epoch
        return int(self._pairs[index - self._mixture.drawn_before(epoch)])


@dataclass(frozen=True, slots=True)
class Share:
    """Units (pieces, or pairs) [first, first + size) of one source, each drawn `weight` times an epoch."""

    first: int
    size: int
    weight: Fraction


class Mixture:
    """Which units each epoch draws, in random order."""

    def __init__(self, shares: Sequence[Share], seed: int) -> None:
        """Weights that are all below 1 are raised together, so that every epoch draws something."""
        raised = max(Fraction(1), 1 / max(share.weight for share in shares))
        shares = [Share(share.first, share.size, share.weight * raised) for share in shares]
        self._shares, self._seed = shares, seed
        self.is_whole = all(share.weight.denominator == 1 for share in shares)
        self._per_epoch = sum((share.size * share.weight for share in shares), Fraction(0))

    def drawn_before(self, epoch: int) -> int:
        """How many units the epochs before this one draw."""
        return sum(math.floor(share.size * share.weight * epoch) for share in self._shares)

    def epoch_of(self, index: int) -> int:
        """The epoch that draws unit number `index`, counted from the start of training."""
        epoch = max(0, int(index / self._per_epoch) - 1)
        while self.drawn_before(epoch + 1) <= index:
            epoch += 1
        return epoch

    def drawn(self, epoch: int) -> I64:
        """The units of an epoch. Each source is gone through pass after pass, whatever epochs these fall into."""
        units = [np.empty(0, np.int64)]
        for number, share in enumerate(self._shares):
            first, stop = (math.floor(share.size * share.weight * e) for e in (epoch, epoch + 1))
            while first < stop:
                which, at = divmod(first, share.size)
                taken = min(stop - first, share.size - at)
                one_pass = shuffled(share.size, self._seed, "source", number, which)
                units.append(share.first + one_pass[at : at + taken])
                first += taken
        together = np.concatenate(units)
        return together[shuffled(len(together), self._seed, "epoch", epoch)]


class _Data:
    """The pieces of all folders under common numbers."""

    def __init__(
        self, folders: Sequence[TokenFolder], kind: Kind, seq_len: int, cutting: Callable[[TokenFolder, int], Pieces]
    ) -> None:
        _require_alike(folders, kind)
        self._folders, self._seq_len = list(folders), seq_len
        self._arrays = [(np.asarray(folder.tokens), np.asarray(folder.mask)) for folder in folders]
        self._pieces = [cutting(folder, seq_len) for folder in folders]
        self._starts = np.cumsum([0, *map(len, self._pieces)])
        self.length = np.concatenate([pieces.length for pieces in self._pieces])
        self.cuts = reduce(add, (pieces.cuts for pieces in self._pieces))
        if not len(self.length):
            raise InputError(
                f"nothing can be learnt from the data: {self.cuts.left_out} documents are too long or empty",
                hint=f"raise data.seq_len, which is {seq_len}",
            )

    def rows(self, pieces: I64, per_row: Sequence[int]) -> PackedRows:
        """Rows of these pieces in order, `per_row[i]` of them in row i."""
        rows = PackedRows.empty(len(per_row), self._seq_len)
        places = Places.side_by_side(per_row, self.length[pieces].astype(np.int64))
        folders = np.searchsorted(self._starts, pieces, side="right") - 1
        for number in np.unique(folders).tolist():
            which = np.flatnonzero(folders == number)
            start = self._pieces[number].start[pieces[which] - self._starts[number]]
            tokens, mask = self._arrays[number]
            rows.fill(places.part(which), tokens, mask, start)
        return rows

    def shares(self, pieces_per_unit: int) -> list[Share]:
        """Of every source that has anything to learn from, in units of so many pieces."""
        shares = []
        for folder, pieces, start in zip(self._folders, self._pieces, self._starts[:-1].tolist(), strict=True):
            for source in folder.manifest.sources:
                bounds = (source.first, source.first + source.documents)
                first, stop = np.searchsorted(pieces.document, bounds).tolist()
                if first < stop:
                    size = (stop - first) // pieces_per_unit
                    shares.append(Share((start + first) // pieces_per_unit, size, _weight(source.weight, source.path)))
        return shares

    def fingerprint(self, **settings: int) -> str:
        facts = {"rules": RULES, "folders": [f.fingerprint for f in self._folders], "seq_len": self._seq_len}
        return hashlib.sha256(json.dumps(facts | settings, sort_keys=True).encode()).hexdigest()


def shuffled(count: int, *key: int | str) -> I64:
    """0 ... count - 1 in an order that the key decides."""
    digest = hashlib.sha256(json.dumps(key).encode()).digest()
    numbers = np.random.Philox(key=int.from_bytes(digest[:16], "little")).random_raw(count)
    return np.argsort(numbers, kind="stable")


def _weight(weight: float, source: str) -> Fraction:
    """To the nearest thousandth, so that epochs come out even."""
    if not 0.001 <= weight <= 1000:
        raise OptionError(f"the weight of {source} must be from 0.001 to 1000, not {weight:g}", hint="prepare it again")
    return Fraction(round(weight * 1000), 1000)


def _require_alike(folders: Sequence[TokenFolder], kind: Kind) -> None:
    if not folders:
        raise OptionError("data.train must name at least one folder", hint="make one with: herd train prepare")
    for folder in folders:
        if folder.manifest.kind != kind:
            raise InputError(f"{folder.path} holds {folder.manifest.kind}, and {kind} are needed")
        if folder.manifest.tokenizer_sha256 != folders[0].manifest.tokenizer_sha256:
            raise InputError(
                f"{folder.path} and {folders[0].path} were prepared with different tokenizers",
                hint="prepare both with the same --model",
            )
