"""The oracle of sampling: each step of the documented order by itself, then the distribution they make together."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from openherd.kernels.philox import gumbel
from openherd.kernels.reference_sampler import Draw, allowed_tokens, draw_token, log_softmax

GREEDY = 0.0


def f32(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def ids(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


def draws(logits: np.ndarray, n: int = 4000, **options: float) -> Counter[int]:
    return Counter(draw_token(logits, Draw(key=(5, position), **options)) for position in range(n))


def test_temperature_zero_takes_the_likeliest_and_the_lowest_id_of_equals() -> None:
    assert draw_token(f32(1, 3, 3, 2), Draw(temperature=GREEDY)) == 1


def test_mask_then_bias_then_penalties() -> None:
    logits = f32(5, 4, 3, -1)
    allowed = np.array([0b1110], np.uint32)
    assert draw_token(logits, Draw(GREEDY, mask=allowed)) == 1
    biased = Draw(GREEDY, mask=allowed, bias_ids=ids(2, 0), bias_values=f32(2, 100))
    assert draw_token(logits, biased) == 2, "a bias must not lift a masked token"
    dense = Draw(GREEDY, mask=allowed, dense=f32(0, 0, 0, 6))
    assert draw_token(logits, dense) == 3
    # 3 + 2 biased, then halved by the repetition penalty: 2.5 loses to 4
    penalised = Draw(
        GREEDY,
        mask=allowed,
        bias_ids=ids(2),
        bias_values=f32(2),
        repetition_penalty=2.0,
        count_ids=ids(2),
        counts=ids(0),
    )
    assert draw_token(logits, penalised) == 1


def test_repetition_penalty_pushes_negative_logits_down() -> None:
    draw = Draw(GREEDY, repetition_penalty=3.0, count_ids=ids(0), counts=ids(1))
    assert draw_token(f32(-1, -2), draw) == 1


def test_presence_and_frequency_count_the_answer_only() -> None:
    logits = f32(3.0, 2.5)
    prompt_only = Draw(GREEDY, presence_penalty=1.0, frequency_penalty=1.0, count_ids=ids(0), counts=ids(0))
    assert draw_token(logits, prompt_only) == 0
    assert draw_token(logits, Draw(GREEDY, presence_penalty=0.6, count_ids=ids(0), counts=ids(3))) == 1
    assert draw_token(logits, Draw(GREEDY, frequency_penalty=0.2, count_ids=ids(0), counts=ids(2))) == 0
    assert draw_token(logits, Draw(GREEDY, frequency_penalty=0.2, count_ids=ids(0), counts=ids(3))) == 1


def test_top_k_keeps_exactly_k_the_lowest_ids_of_equals() -> None:
    assert set(draws(f32(1, 2, 2, 2, 0), top_k=2)) == {1, 2}


def test_top_p_keeps_the_shortest_run_that_reaches_p() -> None:
    logits = np.log(f32(0.5, 0.3, 0.15, 0.05))
    assert set(draws(logits, top_p=0.79)) == {0, 1}
    assert set(draws(logits, top_p=0.81)) == {0, 1, 2}
    assert set(draws(logits, n=50, top_p=1e-9)) == {0}


def test_top_p_is_of_what_top_k_left() -> None:
    logits = np.log(f32(0.4, 0.3, 0.2, 0.1))
    # of the two left, token 0 has 4/7: more than 0.55, which it would not reach of all four
    assert set(draws(logits, n=200, top_k=2, top_p=0.55)) == {0}


def test_min_p_is_relative_to_the_likeliest_after_temperature() -> None:
    logits = np.log(f32(0.5, 0.3, 0.15, 0.05))
    assert set(draws(logits, min_p=0.25)) == {0, 1, 2}
    assert set(draws(logits, min_p=0.25, temperature=0.5)) == {0, 1}  # probabilities squared: 0.36, then 0.09


def test_the_draw_is_the_argmax_of_logit_and_noise() -> None:
    logits, key = f32(0.3, -0.2, 0.9, 0.1), (2**40 + 3, 2**33 + 1)
    wanted = int(np.argmax(logits.astype(np.float64) / 0.75 + gumbel(key, 4)))
    assert draw_token(logits, Draw(temperature=0.75, key=key)) == wanted


def test_draws_follow_the_softmax() -> None:
    """Pearson's chi-square, 3 degrees: a right sampler exceeds 16.3 one time in a thousand; keys are fixed."""
    probabilities = np.array([0.5, 0.3, 0.15, 0.05])
    n = 4000
    counts = draws(np.log(probabilities).astype(np.float32), n)
    observed = np.array([counts[i] for i in range(4)])
    assert np.sum((observed - n * probabilities) ** 2 / (n * probabilities)) < 16.3


def test_nothing_left_to_draw() -> None:
    assert draw_token(f32(1, 2), Draw(mask=np.zeros(1, np.uint32))) == -1
    assert draw_token(f32(1, 2), Draw(GREEDY, mask=np.zeros(1, np.uint32))) == -1


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_logits_that_are_no_numbers_draw_nothing(broken: float) -> None:
    """Even where a mask hides them: the forward that made them cannot be trusted."""
    assert draw_token(f32(1, broken, 2), Draw(mask=np.array([0b101], np.uint32))) == -1


def test_mask_bits_cross_words() -> None:
    mask = np.zeros(2, np.uint32)
    mask[0], mask[1] = 1 << 31, 1 << 1
    assert np.flatnonzero(allowed_tokens(mask, 34)).tolist() == [31, 33]


@pytest.mark.parametrize("shift", [0.0, 1e4, -1e4])
def test_log_softmax_is_shift_invariant_and_sums_to_one(shift: float) -> None:
    logprobs = log_softmax(f32(0, 1, 2) + np.float32(shift))
    np.testing.assert_allclose(np.exp(logprobs).sum(), 1.0, rtol=1e-14)
    np.testing.assert_allclose(logprobs[2] - logprobs[0], 2.0, rtol=1e-12)
