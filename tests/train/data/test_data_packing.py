"""Best-fit rows against a plain one-by-one implementation, and how full they are."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openherd.train.packing import best_fit
from tests.bounds import within_cpu


def one_by_one(lengths: list[int], seq_len: int) -> list[int]:
    """Best-fit decreasing as the paper says it: what each row holds in the end, ascending."""
    rooms: list[int] = []
    for length in lengths:
        fits = [(room, row) for row, room in enumerate(rooms) if room >= length]
        if fits:
            rooms[min(fits)[1]] -= length
        else:
            rooms.append(seq_len - length)
    return sorted(seq_len - room for room in rooms)


@settings(max_examples=2000 if os.environ.get("OPENHERD_FULL_TESTS") else 100, deadline=None)
@given(st.integers(1, 24).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.integers(1, n), max_size=60))))
def test_rows_are_those_of_best_fit_decreasing(case: tuple[int, list[int]]) -> None:
    seq_len, lengths = case[0], sorted(case[1], reverse=True)
    plan = best_fit(np.asarray(lengths, np.int32), seq_len)
    rows = [list(plan.items(row)) for row in range(len(plan))]
    assert sorted(item for row in rows for item in row) == list(range(len(lengths)))
    assert sorted(sum(lengths[item] for item in row) for row in rows) == one_by_one(lengths, seq_len)


@pytest.mark.parametrize(("mean", "efficiency"), [(200, 0.999), (900, 0.93)])
def test_a_million_documents_take_no_loop_over_them(mean: int, efficiency: float) -> None:
    random = np.random.Generator(np.random.Philox(0))
    lengths = -np.sort(-np.clip(random.gamma(2, mean / 2, 1_000_000), 1, 2048).astype(np.int32))
    plan = within_cpu(1.5, lambda: best_fit(lengths, 2048))
    assert lengths.sum() / (len(plan) * 2048) > efficiency
