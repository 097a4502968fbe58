"""Sample plans for tests that drive a backend directly."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openherd.engine.protocols import SamplePlan

MASK_BITS = 32


def neutral_plan(rows: NDArray[np.int32], vocab_size: int, **changes: Any) -> SamplePlan:
    """A plan in which every option is off and temperature is 1; entry i draws with the key (1, i)."""
    n = len(rows)
    neutral = SamplePlan(
        rows=rows,
        temperature=np.ones(n, np.float32),
        top_k=np.zeros(n, np.int32),
        top_p=np.ones(n, np.float32),
        min_p=np.zeros(n, np.float32),
        repetition_penalty=np.ones(n, np.float32),
        presence_penalty=np.zeros(n, np.float32),
        frequency_penalty=np.zeros(n, np.float32),
        keys=np.array([(1, i) for i in range(n)], np.uint64).reshape(n, 2),
        count_starts=np.zeros(n + 1, np.int32),
        count_ids=np.empty(0, np.int32),
        counts=np.empty(0, np.int32),
        bias_starts=np.zeros(n + 1, np.int32),
        bias_ids=np.empty(0, np.int32),
        bias_values=np.empty(0, np.float32),
        mask_rows=np.full(n, -1, np.int32),
        masks=np.empty((0, -(-vocab_size // MASK_BITS)), np.uint32),
        dense_rows=np.full(n, -1, np.int32),
        dense=np.empty((0, vocab_size), np.float32),
        num_top=np.full(n, -1, np.int32),
    )
    return replace(neutral, **changes)


def random_plan(rng: np.random.Generator, num_rows: int, vocab_size: int, n: int) -> SamplePlan:
    """n entries with every option drawn at random, off as often as not."""

    def floats(off: float, low: float, high: float) -> NDArray[np.float32]:
        return np.where(rng.random(n) < 0.5, off, rng.uniform(low, high, n)).astype(np.float32)

    def ragged(most: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        ids = [rng.choice(vocab_size, rng.integers(0, most + 1), replace=False) for _ in range(n)]
        return np.cumsum([0, *map(len, ids)]).astype(np.int32), np.concatenate(ids).astype(np.int32)

    count_starts, count_ids = ragged(40)
    bias_starts, bias_ids = ragged(10)
    words = -(-vocab_size // MASK_BITS)
    return SamplePlan(
        rows=rng.integers(0, num_rows, n).astype(np.int32),
        temperature=floats(0.0, 0.05, 3.0),
        top_k=np.where(rng.random(n) < 0.5, 0, rng.integers(1, vocab_size + 50, n)).astype(np.int32),
        top_p=floats(1.0, 0.01, 1.0),
        min_p=floats(0.0, 0.0, 1.0),
        repetition_penalty=floats(1.0, 0.5, 2.0),
        presence_penalty=floats(0.0, -2.0, 2.0),
        frequency_penalty=floats(0.0, -1.0, 1.0),
        keys=rng.integers(0, 2**64, (n, 2), dtype=np.uint64),
        count_starts=count_starts,
        count_ids=count_ids,
        counts=rng.integers(0, 4, len(count_ids)).astype(np.int32),
        bias_starts=bias_starts,
        bias_ids=bias_ids,
        bias_values=rng.uniform(-5, 5, len(bias_ids)).astype(np.float32),
        mask_rows=rng.integers(-3, 3, n).clip(-1).astype(np.int32),
        masks=rng.integers(0, 2**32, (3, words), dtype=np.uint32),
        dense_rows=rng.integers(-2, 2, n).clip(-1).astype(np.int32),
        dense=rng.uniform(-2, 2, (2, vocab_size)).astype(np.float32),
        num_top=rng.integers(-1, 21, n).astype(np.int32),
    )
