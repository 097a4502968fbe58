"""The data's order: the same rows however a step is cut, documents as often as their weights say, none mixed."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openherd.errors import InputError, OptionError
from openherd.train.order import DataOrder, PairOrder, shuffled
from openherd.train.packing import PADDING, PackedRows
from tests.train.data.token_folders import MOST, document, write_folder

_MORE = 10 if os.environ.get("OPENHERD_FULL_TESTS") else 1
LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=30)


def segments(rows: PackedRows) -> Iterator[tuple[int, int, int]]:
    """(document, first token's place, predicted tokens) of everything in the rows, each checked to be one piece."""
    for row in range(len(rows)):
        held = rows.documents[row]
        for number in range(held.max(initial=-1) + 1):
            (at,) = np.nonzero(held == number)
            assert (np.diff(at) == 1).all()
            ids = rows.token_ids[row, at]
            assert (ids == ids[0] + np.arange(len(ids))).all()  # one document, without a gap
            assert (rows.positions[row, at] == np.arange(len(ids))).all()
            learnt = rows.weights[row, at] == 1
            assert (rows.targets[row, at] == np.where(learnt, ids + 1, 0)).all()
            yield int(ids[0]) // MOST, int(ids[0]) % MOST, len(ids)
        padding = held == PADDING
        assert not rows.weights[row, padding].any()
        assert not rows.targets[row, padding].any()


@settings(max_examples=_MORE * 25, deadline=None)
@given(LENGTHS, st.integers(1, 20), st.integers(1, 5), st.booleans(), st.integers(0, 3))
def test_an_epoch_learns_every_token_once(
    tmp_path_factory: pytest.TempPathFactory,
    lengths: list[int],
    seq_len: int,
    rows_per_step: int,
    pack: bool,
    seed: int,
) -> None:
    lengths = [*lengths, 2]
    folder = write_folder(
        tmp_path_factory.mktemp("data") / "d", [[document(number, length) for number, length in enumerate(lengths)]]
    )
    order = DataOrder([folder], seq_len=seq_len, rows_per_step=1, seed=seed, pack=pack)
    for epoch in range(2):
        steps = range(epoch * order.rows_per_epoch, (epoch + 1) * order.rows_per_epoch)
        learnt = Counter(
            (number, first + 1 + i)
            for step in steps
            for number, first, count in segments(order.rows(step))
            for i in range(count)
        )
        assert learnt == Counter((number, at) for number, length in enumerate(lengths) for at in range(1, length))
    wide = DataOrder([folder], seq_len=seq_len, rows_per_step=rows_per_step, seed=seed, pack=pack)
    for step in (7, 0, 3):
        alone = [order.rows(step * rows_per_step + i) for i in range(rows_per_step)]
        assert (wide.rows(step).token_ids == np.concatenate([row.token_ids for row in alone])).all()
        assert (wide.rows(step).weights == np.concatenate([row.weights for row in alone])).all()


@pytest.mark.parametrize("weights", [[1.0, 1.0], [3.0, 0.5], [0.2, 0.1], [1.0, 0.333]])
def test_t8_any_step_at_once_is_the_step_reached_one_by_one(tmp_path: Path, weights: list[float]) -> None:
    sources = [[document(n, 5 + n) for n in range(7)], [document(10 + n, 30) for n in range(5)]]
    folder = write_folder(tmp_path / "d", sources, weights)
    made = [DataOrder([folder], seq_len=16, rows_per_step=3, seed=5) for _ in range(2)]
    one_by_one = [made[0].rows(step) for step in range(40)]
    for step in (39, 0, 17, 38):
        for name in ("token_ids", "positions", "documents", "targets", "weights"):
            assert (getattr(made[1].rows(step), name) == getattr(one_by_one[step], name)).all()


def test_epochs_and_seeds_come_in_different_orders(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "d", [[document(n, 9) for n in range(50)]])
    order = DataOrder([folder], seq_len=8, rows_per_step=50, seed=0)
    other = DataOrder([folder], seq_len=8, rows_per_step=50, seed=1)
    firsts = [tuple(rows.token_ids[:, 0].tolist()) for rows in (order.rows(0), order.rows(1), other.rows(0))]
    assert len(set(firsts)) == 3
    assert len({tuple(sorted(first)) for first in firsts}) == 1


@settings(max_examples=_MORE * 10, deadline=None)
@given(st.lists(st.sampled_from([0.1, 0.25, 0.3, 1.0, 2.0, 2.5]), min_size=1, max_size=3), st.integers(1, 9))
def test_sources_are_drawn_as_their_weights_say(
    tmp_path_factory: pytest.TempPathFactory, weights: list[float], size: int
) -> None:
    """Over ten epochs each document as often as another of its source, give or take one, and sources by weight."""
    sources = [[document(100 * s + n, 4) for n in range(size)] for s in range(len(weights))]
    folder = write_folder(tmp_path_factory.mktemp("data") / "d", sources, weights)
    order = DataOrder([folder], seq_len=3, rows_per_step=1, seed=0)
    per_epoch = [weight / min(1.0, max(weights)) for weight in weights]
    rows = int(sum(size * weight for weight in per_epoch) * 10 + 1e-6)
    seen = Counter(number for step in range(rows) for number, _, _ in segments(order.rows(step)))
    for s, weight in enumerate(per_epoch):
        counts = [seen[100 * s + n] for n in range(size)]
        assert max(counts) - min(counts) <= 1
        assert abs(sum(counts) - size * weight * 10) <= 1


def test_long_conversations_lose_their_end_and_are_counted(tmp_path: Path) -> None:
    chats = [document(0, 11, given=5), document(1, 40, given=5), document(2, 40, given=20), document(3, 40)]
    order = DataOrder([write_folder(tmp_path / "d", [chats])], seq_len=10, rows_per_step=1, seed=0)
    assert (order.cuts.split, order.cuts.truncated, order.cuts.left_out) == (1, 1, 1)
    assert order.cuts.lost_tokens == (39 - 10) + 20
    seen = Counter(number for step in range(order.rows_per_epoch) for number, _, _ in segments(order.rows(step)))
    assert seen == {0: 1, 1: 1, 3: 4}


def test_nothing_to_learn_is_an_error_that_names_the_key(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "d", [[document(0, 40, given=20)]])
    with pytest.raises(InputError, match=r"nothing can be learnt .* 1 documents(.|\n)*data\.seq_len, which is 10"):
        DataOrder([folder], seq_len=10, rows_per_step=1, seed=0)


def test_folders_that_do_not_belong_together(tmp_path: Path) -> None:
    mine = write_folder(tmp_path / "a", [[document(0, 5)]])
    theirs = write_folder(tmp_path / "b", [[document(0, 5)]], tokenizer="other")
    pairs = write_folder(tmp_path / "c", [[document(0, 5), document(1, 5)]], kind="preferences")
    for folders, message in (([mine, theirs], "different tokenizers"), ([mine, pairs], "preferences, and documents")):
        with pytest.raises(InputError, match=message):
            DataOrder(folders, seq_len=10, rows_per_step=1, seed=0)
    with pytest.raises(OptionError, match=r"data\.train"):
        DataOrder([], seq_len=10, rows_per_step=1, seed=0)
    heavy = write_folder(tmp_path / "e", [[document(0, 5)]], [1e5])
    with pytest.raises(OptionError, match=r"weight of 0\.txt must be from"):
        DataOrder([heavy], seq_len=10, rows_per_step=1, seed=0)


def test_several_folders_are_one(tmp_path: Path) -> None:
    folders = [write_folder(tmp_path / str(n), [[document(10 * n + i, 6) for i in range(3)]]) for n in range(3)]
    order = DataOrder(folders, seq_len=5, rows_per_step=9, seed=0)
    assert sorted(number for number, _, _ in segments(order.rows(0))) == [0, 1, 2, 10, 11, 12, 20, 21, 22]


def test_fingerprints_tell_what_decides_the_order(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "d", [[document(n, 9) for n in range(5)]])
    changed = write_folder(tmp_path / "e", [[document(n, 9) for n in range(1, 6)]])
    usual = {"seq_len": 8, "rows_per_step": 2, "seed": 0, "pack": True}
    prints = [DataOrder([folder], **usual).fingerprint, DataOrder([changed], **usual).fingerprint]
    changes = ({"seq_len": 9}, {"rows_per_step": 3}, {"seed": 1}, {"pack": False})
    prints += [DataOrder([folder], **usual | change).fingerprint for change in changes]
    assert len(set(prints)) == len(prints)
    assert DataOrder([folder], **usual).fingerprint == prints[0]


def test_pairs_stay_together_and_are_drawn_once_an_epoch(tmp_path: Path) -> None:
    ends = [document(n, 6 + n % 3, given=3) for n in range(14)]
    ends[4] = document(4, 30, given=20)  # nothing to learn within a row: pair 2 goes, with both ends
    ends[7] = document(7, 30, given=5)
    order = PairOrder([write_folder(tmp_path / "d", [ends], kind="preferences")], seq_len=12, pairs_per_step=2, seed=3)
    assert (order.pairs_per_epoch, order.cuts.left_out, order.cuts.truncated) == (6, 1, 1)
    epochs = []
    for epoch in range(2):
        drawn = [number for step in range(3) for number, _, _ in segments(order.rows(3 * epoch + step))]
        assert [number + 1 for number in drawn[::2]] == drawn[1::2]
        epochs.append(drawn[::2])
    assert sorted(epochs[0]) == sorted(epochs[1]) == [0, 2, 6, 8, 10, 12]
    assert epochs[0] != epochs[1]
    assert (order.rows(5).token_ids[:, 0] == order.rows(5).trimmed().token_ids[:, 0]).all()
    assert order.rows(0).trimmed().token_ids.shape[1] < 12


def test_shuffles_are_what_they_were() -> None:
    """A change here makes every resumed run see other data: raise `RULES` with it."""
    assert shuffled(8, 0, "epoch", 0).tolist() == [7, 2, 6, 4, 3, 5, 0, 1]
    assert sorted(shuffled(1000, 1, "rows", 2).tolist()) == list(range(1000))
