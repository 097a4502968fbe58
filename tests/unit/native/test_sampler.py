"""The native sampler against the float64 oracle, and its behaviour at the borders."""

from __future__ import annotations

import numpy as np
import pytest

from openherd._native import available_isas
from openherd.engine.protocols import SamplePlan
from openherd.engine.reference_backend import draw_of
from openherd.kernels import native
from openherd.kernels.reference_sampler import draw_token, log_softmax
from tests.unit.native.native_models import LogitSource, plan_of

VOCABULARIES = [13, 16, 101, 5000]


def _oracle(logits: np.ndarray, plan: SamplePlan, i: int) -> int:
    return draw_token(logits[plan.rows[i]], draw_of(plan, i))


def _random_plan(rng: np.random.Generator, n: int, rows: int, vocab: int) -> SamplePlan:
    """Every field in use, each on about half of the entries."""

    def sometimes(values: np.ndarray, off: float) -> np.ndarray:
        return np.where(rng.random(n) < 0.5, values, off).astype(values.dtype)

    def ragged(most: int) -> tuple[np.ndarray, np.ndarray]:
        """Starts and ids; no id twice in one entry."""
        lists = [rng.permutation(vocab)[: rng.integers(0, min(most, vocab) + 1)] for _ in range(n)]
        starts = np.cumsum([0] + [len(ids) for ids in lists])
        return starts.astype(np.int32), np.concatenate(lists).astype(np.int32)

    count_starts, count_ids = ragged(20)
    bias_starts, bias_ids = ragged(5)
    return plan_of(
        n,
        vocab,
        rows=rng.integers(0, rows, n, dtype=np.int32),
        temperature=sometimes(rng.uniform(0.1, 3.0, n).astype(np.float32), rng.choice([0.0, 1.0])),
        top_k=sometimes(rng.integers(1, 60, n, dtype=np.int32), 0),
        top_p=sometimes(rng.uniform(0.05, 1.0, n).astype(np.float32), 1.0),
        min_p=sometimes(rng.uniform(0.0, 0.3, n).astype(np.float32), 0.0),
        repetition_penalty=sometimes(rng.uniform(0.5, 2.0, n).astype(np.float32), 1.0),
        presence_penalty=sometimes(rng.uniform(-2, 2, n).astype(np.float32), 0.0),
        frequency_penalty=sometimes(rng.uniform(-2, 2, n).astype(np.float32), 0.0),
        keys=rng.integers(0, 2**64, (n, 2), dtype=np.uint64),
        count_starts=count_starts,
        count_ids=count_ids,
        counts=rng.integers(0, 4, len(count_ids), dtype=np.int32),
        bias_starts=bias_starts,
        bias_ids=bias_ids,
        bias_values=rng.uniform(-5, 5, len(bias_ids)).astype(np.float32),
        mask_rows=sometimes(rng.integers(0, 3, n, dtype=np.int32), -1),
        masks=rng.integers(0, 2**32, (3, (vocab + 31) // 32), dtype=np.uint32),
        dense_rows=sometimes(rng.integers(0, 2, n, dtype=np.int32), -1),
        dense=rng.normal(0, 2, (2, vocab)).astype(np.float32),
        num_top=sometimes(rng.integers(0, 6, n, dtype=np.int32), -1),
    )


@pytest.mark.parametrize("isa", available_isas())
@pytest.mark.parametrize("vocab", VOCABULARIES)
def test_random_plans_draw_what_the_oracle_draws(vocab: int, isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "default_isa", lambda: isa)
    rng = np.random.default_rng(vocab)
    source = LogitSource(rng.normal(0, 3, (12, vocab)).astype(np.float32))
    n, rounds, differences = 64, 6, 0
    for _ in range(rounds):
        plan = _random_plan(rng, n, 12, vocab)
        sampled = source.backend.sample(source.step, plan)
        differences += int(sum(sampled.token_ids[i] != _oracle(source.logits, plan, i) for i in range(n)))
    # Penalties and biases are float32 here and float64 there: a candidate within 1e-6 of a border may change sides.
    assert differences <= n * rounds // 200


@pytest.mark.parametrize("spread", [0.1, 3.0, 12.0])
@pytest.mark.parametrize("temperature", [0.05, 1.0, 5.0])
def test_plain_temperature_takes_the_oracles_token_every_time(spread: float, temperature: float) -> None:
    """The search for contenders must never drop the winner: 300 draws, flat to peaked."""
    rng = np.random.default_rng(int(spread * 10))
    source = LogitSource(rng.normal(0, spread, (1, 3001)).astype(np.float32))
    n = 300
    plan = plan_of(
        n,
        3001,
        rows=np.zeros(n, np.int32),
        temperature=np.full(n, temperature, np.float32),
        keys=rng.integers(0, 2**64, (n, 2), dtype=np.uint64),
    )
    drawn = source.backend.sample(source.step, plan).token_ids
    assert drawn.tolist() == [_oracle(source.logits, plan, i) for i in range(n)]


def test_draws_follow_the_softmax() -> None:
    """Pearson's statistic over 4 tokens and 20,000 draws; 3 degrees of freedom exceed 30 with p < 2e-6 (fixed keys)."""
    source = LogitSource(np.log(np.array([[0.1, 0.2, 0.3, 0.4]], np.float32)))
    n = 20_000
    keys = np.stack([np.full(n, 7), np.arange(n)], axis=1).astype(np.uint64)
    plan = plan_of(n, 4, rows=np.zeros(n, np.int32), temperature=np.ones(n, np.float32), keys=keys)
    counts = np.bincount(source.backend.sample(source.step, plan).token_ids, minlength=4)
    expected = n * np.array([0.1, 0.2, 0.3, 0.4])
    assert np.sum((counts - expected) ** 2 / expected) < 30


def test_ties_go_to_the_lowest_id() -> None:
    logits = np.zeros((1, 50), np.float32)
    logits[0, [9, 30]] = 2.0
    source = LogitSource(logits)
    plan = plan_of(1, 50, num_top=np.array([4], np.int32))
    sampled = source.backend.sample(source.step, plan)
    assert sampled.token_ids.tolist() == [9]
    assert sampled.top_ids.tolist() == [[9, 30, 0, 1]]


def test_logprobs_are_of_the_raw_logits() -> None:
    rng = np.random.default_rng(3)
    source = LogitSource(rng.normal(0, 4, (5, 1234)).astype(np.float32))
    plan = plan_of(
        5,
        1234,
        temperature=np.full(5, 2.0, np.float32),
        top_k=np.full(5, 3, np.int32),
        num_top=np.array([2, -1, 0, 5, 1], np.int32),
    )
    sampled = source.backend.sample(source.step, plan)
    expected = log_softmax(source.logits)
    for i, wanted in enumerate(plan.num_top):
        ranked = np.lexsort((np.arange(1234), -source.logits[i]))[: max(wanted, 0)]
        assert sampled.top_ids[i].tolist() == [*ranked.tolist(), *[-1] * (5 - len(ranked))]
        # float32 rounding of a number near -10, and the sum's error of some 1e-7
        np.testing.assert_allclose(sampled.top_logprobs[i, : len(ranked)], expected[i, ranked], atol=4e-6)
        drawn = expected[i, sampled.token_ids[i]] if wanted >= 0 else 0.0
        np.testing.assert_allclose(sampled.logprobs[i], drawn, atol=4e-6)


def test_score_is_the_log_softmax_at_the_targets() -> None:
    rng = np.random.default_rng(4)
    source = LogitSource(rng.normal(0, 6, (9, 777)).astype(np.float32))
    rows = rng.integers(0, 9, 40, dtype=np.int32)
    targets = rng.integers(0, 777, 40, dtype=np.int32)
    scored = source.backend.score(source.step, rows, targets)
    np.testing.assert_allclose(scored, log_softmax(source.logits)[rows, targets], atol=4e-6)


def test_a_mask_that_allows_nothing_draws_minus_one() -> None:
    source = LogitSource(np.zeros((1, 40), np.float32))
    for temperature in (0.0, 1.0):
        plan = plan_of(
            1,
            40,
            temperature=np.full(1, temperature, np.float32),
            mask_rows=np.zeros(1, np.int32),
            masks=np.zeros((1, 2), np.uint32),
        )
        assert source.backend.sample(source.step, plan).token_ids.tolist() == [-1]


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_no_numbers_draw_minus_one_and_leave_other_rows_alone(value: float, temperature: float) -> None:
    """Dense biases carry the bad value, since a model that yields one spreads it over its whole row."""
    source = LogitSource(np.arange(2 * 33, dtype=np.float32).reshape(2, 33) / 8)
    dense = np.zeros((1, 33), np.float32)
    dense[0, 32] = value
    plan = plan_of(
        2,
        33,
        temperature=np.full(2, temperature, np.float32),
        dense_rows=np.array([0, -1], np.int32),
        dense=dense,
        num_top=np.zeros(2, np.int32),
    )
    drawn = source.backend.sample(source.step, plan).token_ids
    assert drawn[0] == -1
    assert drawn[1] >= 0


def test_an_entry_draws_the_same_in_any_company_and_on_any_number_of_threads() -> None:
    rng = np.random.default_rng(11)
    logits = rng.normal(0, 2, (10, 900)).astype(np.float32)
    plan = _random_plan(rng, 40, 10, 900)
    alike = []
    for threads in (1, 2, 3):
        source = LogitSource(logits, threads)
        alike.append(source.backend.sample(source.step, plan))
    for other in alike[1:]:
        assert other.token_ids.tolist() == alike[0].token_ids.tolist()
        assert other.logprobs.tobytes() == alike[0].logprobs.tobytes()
        assert other.top_logprobs.tobytes() == alike[0].top_logprobs.tobytes()


GARBAGE = {
    "rows": np.array([5], np.int32),
    "temperature": np.array([np.nan], np.float32),
    "top_k": np.array([-1], np.int32),
    "top_p": np.array([1.5], np.float32),
    "min_p": np.array([-0.1], np.float32),
    "repetition_penalty": np.array([0.0], np.float32),
    "presence_penalty": np.array([np.inf], np.float32),
    "keys": np.zeros((1, 3), np.uint64),
    "count_starts": np.array([0, 9], np.int32),
    "bias_starts": np.array([1, 0], np.int32),
    "count_ids": np.array([1000], np.int32),
    "mask_rows": np.array([0], np.int32),
    "masks": np.zeros((2, 9), np.uint32),
    "dense_rows": np.array([-2], np.int32),
    "dense": np.zeros((1, 8), np.float32),
    "num_top": np.array([1, 2], np.int32),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_in_a_plan_is_a_value_error(name: str) -> None:
    source = LogitSource(np.zeros((1, 40), np.float32))
    with pytest.raises(ValueError, match="sample plan"):
        source.backend.sample(source.step, plan_of(1, 40, **{name: GARBAGE[name]}))


def test_an_array_of_another_dtype_is_a_type_error() -> None:
    source = LogitSource(np.zeros((1, 40), np.float32))
    with pytest.raises(TypeError):
        source.backend.sample(source.step, plan_of(1, 40, temperature=np.zeros(1, np.float64)))


def test_the_whole_vocabulary_can_be_asked_for() -> None:
    source = LogitSource(np.arange(20, dtype=np.float32)[None])
    sampled = source.backend.sample(source.step, plan_of(1, 20, num_top=np.array([1000], np.int32)))
    assert sampled.top_ids.tolist() == [list(range(19, -1, -1))]
