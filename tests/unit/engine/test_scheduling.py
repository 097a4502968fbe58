"""Paging, sharing, preemption and bookkeeping, on a backend whose answers depend on every cached token."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openherd.engine.engine import Engine
from openherd.engine.pace import PrefillPace
from openherd.engine.sequence import Request
from openherd.messages import FinishReason
from openherd.options import SamplingParams
from tests.unit.engine.tiny_model import drain, prompt, run
from tests.unit.engine.token_cache_backend import (
    VOCAB,
    TokenCacheBackend,
    expected_answer,
    expected_score,
    token_cache_engine,
)


def ask(length: int, seed: int, max_tokens: int = 20, **changes: object) -> Request:
    request = Request(prompt(length, seed, vocab_size=VOCAB), SamplingParams(max_tokens=max_tokens, seed=seed))
    return replace(request, **changes)


def assert_right(request: Request, answer: list[int]) -> None:
    params = request.params
    assert params.seed is not None
    assert params.max_tokens is not None
    assert answer == expected_answer(request.prompt_ids, params.seed, params.max_tokens, request.choice)


def assert_nothing_is_held(engine: Engine) -> None:
    assert not engine.has_work
    stats = engine.stats
    assert (stats.num_free_blocks, stats.num_running, stats.num_waiting) == (stats.num_total_blocks, 0, 0)


def test_a_batch_of_many_with_split_prompts_answers_each_as_alone() -> None:
    engine = token_cache_engine()
    requests = [ask(20 + 9 * i, seed=i) for i in range(16)]
    for request, answer in zip(requests, run(engine, requests), strict=True):
        assert_right(request, answer.token_ids)
    assert engine.stats.max_batch_seqs >= 8
    assert engine.stats.num_split_prompts > 0
    assert_nothing_is_held(engine)


@pytest.mark.parametrize("prefix_caching", [True, False])
def test_running_out_of_blocks_preempts_the_youngest_and_loses_nothing(prefix_caching: bool) -> None:
    """Twelve answers grow to five blocks each, in a pool of sixteen: some must give way and be computed again."""
    engine = token_cache_engine(num_blocks=16, prefix_caching=prefix_caching)
    requests = [ask(17, seed=i, max_tokens=60) for i in range(12)]
    for request, answer in zip(requests, run(engine, requests), strict=True):
        assert_right(request, answer.token_ids)
    assert engine.stats.num_preemptions > 0
    assert_nothing_is_held(engine)


def test_requests_finish_in_order_of_arrival_when_only_one_fits() -> None:
    engine = token_cache_engine(num_blocks=16, context=256)
    seq_ids = [engine.add_request(ask(200, seed=i, max_tokens=50)) for i in range(4)]
    assert list(drain(engine)) == seq_ids


def test_a_repeated_prompt_is_found_in_the_cache() -> None:
    engine = token_cache_engine()
    first, again = run(engine, [ask(100, seed=1)])[0], run(engine, [ask(100, seed=1)])[0]
    assert again.token_ids == first.token_ids
    assert first.last is not None
    assert again.last is not None
    assert (first.last.cached_tokens, again.last.cached_tokens) == (0, 96)  # six full blocks of sixteen
    assert engine.stats.num_cached_tokens == 96
    assert engine.stats.num_prompt_tokens == 100 + 4


def test_a_prompt_of_whole_blocks_still_computes_its_last_block() -> None:
    """The last token's logits are needed, and a cached block must not be written: its whole block is computed anew."""
    engine = token_cache_engine()
    request = ask(64, seed=1)
    for cached in (0, 48):
        answer = run(engine, [request])[0]
        assert_right(request, answer.token_ids)
        assert answer.last is not None
        assert answer.last.cached_tokens == cached


def test_a_conversation_finds_its_own_answer_in_the_cache() -> None:
    engine = token_cache_engine()
    request = ask(30, seed=1, max_tokens=40)
    answer = run(engine, [request])[0].token_ids
    turn = replace(request, prompt_ids=request.prompt_ids + tuple(answer) + prompt(9, 5, vocab_size=VOCAB))
    again = run(engine, [turn])[0]
    assert_right(turn, again.token_ids)
    assert again.last is not None
    assert again.last.cached_tokens == 64


@pytest.mark.parametrize("changes", [{"salt": b"another tenant"}, {"adapter": 0}])
def test_other_tenants_and_adapters_never_share_blocks(changes: dict[str, object]) -> None:
    engine = token_cache_engine()
    engine.load_adapter(None)
    run(engine, [ask(100, seed=1)])
    other = run(engine, [ask(100, seed=1, **changes)])[0]
    assert other.last is not None
    assert other.last.cached_tokens == 0


def test_without_prefix_caching_nothing_is_found() -> None:
    engine = token_cache_engine(prefix_caching=False)
    run(engine, [ask(100, seed=1)])
    run(engine, [ask(100, seed=1)])
    assert engine.stats.num_cached_tokens == 0


@pytest.mark.parametrize("prefix_caching", [True, False])
@pytest.mark.parametrize("length", [1, 2, 16, 17, 33, 70, 100])
def test_choices_share_the_prompt_and_its_last_block_is_copied_on_write(length: int, prefix_caching: bool) -> None:
    engine = token_cache_engine(prefix_caching=prefix_caching)
    request = Request(prompt(length, 3, vocab_size=VOCAB), SamplingParams(n=4, seed=11, max_tokens=25))
    seq_ids = engine.add_choices(request.choices())
    answers = drain(engine)
    for choice, seq_id in enumerate(seq_ids):
        assert answers[seq_id].token_ids == expected_answer(request.prompt_ids, 11, 25, choice)
    assert engine.stats.num_prompt_tokens == length + 3, "each further choice computes the last prompt token only"
    assert engine.stats.num_forks == (3 if length > 1 else 0)
    assert_nothing_is_held(engine)


def test_a_choice_whose_sibling_is_gone_computes_the_prompt_itself() -> None:
    engine = token_cache_engine(prefix_caching=False)
    first, second = engine.add_choices(
        Request(prompt(50, 3, vocab_size=VOCAB), SamplingParams(n=2, seed=1, max_tokens=5)).choices()
    )
    engine.abort(first)
    assert drain(engine)[second].token_ids == expected_answer(prompt(50, 3, vocab_size=VOCAB), 1, 5, choice=1)


def test_choices_under_preemption_answer_as_alone() -> None:
    engine = token_cache_engine(num_blocks=16)
    request = Request(prompt(37, 3, vocab_size=VOCAB), SamplingParams(n=8, seed=2, max_tokens=90))
    seq_ids = engine.add_choices(request.choices())
    answers = drain(engine)
    assert engine.stats.num_preemptions > 0
    for choice, seq_id in enumerate(seq_ids):
        assert answers[seq_id].token_ids == expected_answer(request.prompt_ids, 2, 90, choice)


@pytest.mark.parametrize("max_batch_tokens", [16, 64, 512])
def test_a_prompt_is_scored_whole_whatever_the_chunks(max_batch_tokens: int) -> None:
    engine = token_cache_engine(max_batch_tokens=max_batch_tokens)
    request = ask(200, seed=4, max_tokens=3, prompt_logprobs=True)
    ids = request.prompt_ids
    run(engine, [ask(200, seed=4)])  # a warm cache must not leave positions out
    others = [ask(30, seed=i) for i in range(5)]
    answer = run(engine, [request, *others])[0]
    assert answer.prompt_logprobs == tuple(expected_score(ids[: i + 1]) for i in range(1, len(ids)))
    assert_right(request, answer.token_ids)


def test_scoring_alone_ends_with_the_prompt_and_may_fill_the_context() -> None:
    engine = token_cache_engine(context=128)
    requests = [ask(128, seed=i, prompt_logprobs=True, generate=False) for i in range(3)]
    requests.append(ask(1, seed=9, prompt_logprobs=True, generate=False))
    for request, answer in zip(requests, run(engine, requests), strict=True):
        assert answer.token_ids == []
        assert answer.finish_reason is FinishReason.LENGTH
        ids = request.prompt_ids
        assert answer.prompt_logprobs == tuple(expected_score(ids[: i + 1]) for i in range(1, len(ids)))
    assert_nothing_is_held(engine)


def test_aborting_frees_the_blocks_at_any_moment() -> None:
    engine = token_cache_engine(num_blocks=16)
    seq_ids = [engine.add_request(ask(100, seed=i)) for i in range(5)]
    for seq_id in seq_ids:
        engine.step()
        engine.abort(seq_id)
        engine.abort(seq_id)  # a caller that goes away twice
    assert engine.stats.num_aborted == 5
    assert engine.step() == []
    assert_nothing_is_held(engine)


def test_a_thousand_random_requests_leak_no_block() -> None:
    """Adding, forking, finishing, aborting and failing at random; whoever is left alone answers rightly."""
    rng = random.Random(5)
    backend = TokenCacheBackend()
    engine = token_cache_engine(backend=backend, num_blocks=24, max_seqs=12)
    asked: dict[int, Request] = {}
    ended = spared = 0
    while ended < 1000:
        for _ in range(rng.randrange(3)):
            length, max_tokens = rng.choice([5, 16, 40, 90]), rng.choice([1, 20, 60])
            params = SamplingParams(max_tokens=max_tokens, seed=rng.randrange(3), n=rng.choice([1, 1, 3]))
            request = Request(prompt(length, rng.randrange(4), vocab_size=VOCAB), params)
            for choice, seq_id in enumerate(engine.add_choices(request.choices())):
                asked[seq_id] = replace(request, choice=choice)
        backend.fail_next = rng.random() < 0.01
        answers = {output.seq_id: output for output in engine.step()}
        for seq_id in [seq_id for seq_id, output in answers.items() if output.finish_reason]:
            del asked[seq_id]
            ended += 1
        for seq_id in [seq_id for seq_id in asked if rng.random() < 0.02]:
            if rng.random() < 0.5 or seq_id not in answers:
                engine.abort(seq_id)
            else:
                engine.finish(seq_id, FinishReason.STOP, 0)
            del asked[seq_id]
            ended += 1
    for seq_id in list(asked)[::2]:
        engine.abort(seq_id)
    drain(engine)
    assert_nothing_is_held(engine)
    assert engine.stats.num_preemptions > 0
    assert engine.stats.num_evicted_blocks > 0
    for request in [ask(60, seed=i) for i in range(8)]:  # what the cache kept is still right
        assert_right(request, run(engine, [request])[0].token_ids)
        spared += 1
    assert spared == 8


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.tuples(st.integers(1, 90), st.integers(1, 70), st.integers(1, 3)), min_size=1, max_size=12),
    num_blocks=st.integers(10, 40),
    max_seqs=st.integers(1, 12),
    max_batch_tokens=st.integers(16, 80),
    prefix_caching=st.booleans(),
)
def test_any_load_on_any_pool_answers_rightly(
    lengths: list[tuple[int, int, int]], num_blocks: int, max_seqs: int, max_batch_tokens: int, prefix_caching: bool
) -> None:
    engine = token_cache_engine(
        num_blocks=num_blocks,
        context=160,
        max_seqs=max_seqs,
        max_batch_tokens=max_batch_tokens,
        prefix_caching=prefix_caching,
    )
    requests = {}
    for length, max_tokens, n in lengths:
        params = SamplingParams(max_tokens=max_tokens, seed=length, n=n)
        request = Request(prompt(length, seed=0, vocab_size=VOCAB), params)  # prompts begin alike
        for choice, seq_id in enumerate(engine.add_choices(request.choices())):
            requests[seq_id] = replace(request, choice=choice)
    answers = drain(engine)
    for seq_id, request in requests.items():
        assert_right(request, answers[seq_id].token_ids)
    assert_nothing_is_held(engine)


def test_prompt_rows_are_rationed_while_answers_run() -> None:
    pace = PrefillPace()
    assert pace.prefill_rows(num_decodes=0, num_prompts=1, room=512) == 512
    for _ in range(50):
        pace.observe(0.010, num_decodes=4, num_prefill_rows=0)
        pace.observe(0.100, num_decodes=0, num_prefill_rows=500)
    assert pace.prefill_rows(num_decodes=4, num_prompts=1, room=508) == 85  # 1.7 steps of 10 ms, at 0.2 ms a row
    for _ in range(50):
        pace.observe(0.010 + 85 * 0.0004, num_decodes=4, num_prefill_rows=85)  # a longer context costs more
    pace.observe(0.010, num_decodes=4, num_prefill_rows=0)
    assert pace.prefill_rows(num_decodes=4, num_prompts=1, room=508) == 42
    assert pace.prefill_rows(num_decodes=4, num_prompts=1, room=10) == 10


def test_a_crowd_of_prompts_is_not_held_up_by_few_answers() -> None:
    pace = PrefillPace()
    for _ in range(10):
        pace.observe(0.004, num_decodes=2, num_prefill_rows=0)
        pace.observe(0.004 + 6 * 0.001, num_decodes=2, num_prefill_rows=6)
    given = [pace.prefill_rows(num_decodes=8, num_prompts=prompts, room=500) for prompts in (1, 2, 3, 4, 5, 8, 30)]
    assert given == [6, 7, 48, 64, 80, 100, 100]  # a tenth of a second's at most
    assert pace.prefill_rows(num_decodes=40, num_prompts=12, room=500) < 10
    assert pace.prefill_rows(num_decodes=1, num_prompts=2, room=500) < 10
    assert pace.prefill_rows(num_decodes=8, num_prompts=30, room=50) == 50
    for _ in range(40):
        pace.observe(0.004 + 48 * 0.001, num_decodes=8, num_prefill_rows=48)
    assert pace.prefill_rows(num_decodes=8, num_prompts=3, room=500) == 48, "no step goes without a crowd's"


def test_prompt_rows_keep_to_what_answers_wait_for() -> None:
    """Neither the last decode step nor disturbed ones decide over a prompt of thousands of tokens."""
    pace = PrefillPace()
    for _ in range(20):
        for seconds in (0.003, 0.004, 0.004, 0.006):
            pace.observe(seconds, num_decodes=4, num_prefill_rows=0)
    for seconds in (1.0, 1.0, 0.004, 0.004, 0.004):
        pace.observe(seconds, num_decodes=4, num_prefill_rows=0)
    for _ in range(12):
        pace.observe(0.004 + 4 * 0.003, num_decodes=4, num_prefill_rows=4)
    assert pace.prefill_rows(num_decodes=4, num_prompts=1, room=508) == 0
    given = [pace.prefill_rows(num_decodes=4, num_prompts=1, room=508) for _ in range(20)]
    assert set(given) == {3, 4}
    assert sum(given) == 77  # of 3.9 x 4 ms less 4, at 3 ms a row, 20 times: a fraction of a row is not lost


def step_beside_a_prompt(pace: PrefillPace, num_decodes: int, decode_s: float) -> tuple[int, float]:
    """One step of a prompt whose rows take a millisecond: its rows, and its seconds."""
    rows = pace.prefill_rows(num_decodes=num_decodes, num_prompts=1, room=508)
    seconds = decode_s + 0.001 * rows
    pace.observe(seconds, num_decodes=num_decodes, num_prefill_rows=rows)
    return rows, seconds


def test_answers_that_grow_beside_a_prompt_do_not_make_its_rows_look_dear() -> None:
    """One step in 13 goes without prompt rows, so what a decode step takes is known; the whole step takes no longer."""
    pace = PrefillPace()
    for _ in range(100):
        pace.observe(0.008, num_decodes=4, num_prefill_rows=0)
    longest, without, growing = 0.0, 0, []
    for step in range(600):
        rows, seconds = step_beside_a_prompt(pace, 4, 0.008 + 0.00001 * step)
        without += rows == 0
        if step > 20:
            longest = max(longest, seconds)
            growing.append(rows)
    assert without == 600 // 13
    assert longest < 1.1 * 2 * 0.014
    assert min(rows for rows in growing if rows) >= 8, "what the answers added passed for the price of rows"


def test_a_prompt_gets_as_much_as_the_answers_of_today_take() -> None:
    """However short their steps were when no prompt rows came between them."""
    pace = PrefillPace()
    for _ in range(60):
        pace.observe(0.001, num_decodes=1, num_prefill_rows=0)
    for _ in range(20):
        pace.observe(0.02 + 8 * 0.001, num_decodes=16, num_prefill_rows=8)
        pace.observe(0.02, num_decodes=16, num_prefill_rows=0)
    pace.observe(1.0, num_decodes=16, num_prefill_rows=0)  # disturbed
    assert 18 <= pace.prefill_rows(num_decodes=16, num_prompts=1, room=508) <= 20


def test_steps_among_those_of_a_prompt_do_not_lengthen_them() -> None:
    pace = PrefillPace()
    for step in range(128):
        pace.observe((0.006, 0.008, 0.016)[step % 3], num_decodes=4, num_prefill_rows=0)
    for _ in range(200):
        for _ in range(12):
            pace.observe(0.014 + 10 * 0.001, num_decodes=4, num_prefill_rows=10)
        assert pace.prefill_rows(num_decodes=4, num_prompts=1, room=508) == 0
        pace.observe(0.014, num_decodes=4, num_prefill_rows=0)
    assert pace.prefill_rows(num_decodes=4, num_prompts=1, room=508) == 17  # 3.9 x 8 ms less 14


def test_a_prompt_is_not_paced_for_ever_by_decodes_of_long_ago() -> None:
    """They were more, or one and disturbed."""
    for before in ([0.04] * 60, [0.5]):
        pace = PrefillPace()
        for seconds in before:
            pace.observe(seconds, num_decodes=16, num_prefill_rows=0)
        for _ in range(100):
            step_beside_a_prompt(pace, 1, 0.005)
        assert pace.prefill_rows(num_decodes=1, num_prompts=1, room=508) <= 25, "six of today's decodes"


def test_a_prompt_that_came_before_any_decode() -> None:
    pace = PrefillPace()
    for _ in range(12):
        assert pace.prefill_rows(num_decodes=4, num_prompts=1, room=508) == 64
        pace.observe(0.1, num_decodes=4, num_prefill_rows=64)
    assert pace.prefill_rows(num_decodes=4, num_prompts=1, room=508) == 0
    pace.observe(0.01, num_decodes=4, num_prefill_rows=0)
    assert pace.prefill_rows(num_decodes=4, num_prompts=1, room=508) == 64


def test_steps_shorter_than_expected_and_dear_rows_leave_nothing_behind() -> None:
    pace = PrefillPace()
    for _ in range(20):
        pace.observe(0.01, num_decodes=4, num_prefill_rows=0)
    for _ in range(11):
        pace.observe(0.01 + 10 * 0.05, num_decodes=4, num_prefill_rows=10)
        assert pace.prefill_rows(num_decodes=4, num_prompts=1, room=508) == 3, "a row costs more than the step may"
    pace = PrefillPace()
    for _ in range(20):
        pace.observe(0.01, num_decodes=4, num_prefill_rows=0)
    pace.observe(0.02, num_decodes=4, num_prefill_rows=10)
    for _ in range(10):
        pace.observe(0.005, num_decodes=4, num_prefill_rows=10)
    assert pace.prefill_rows(num_decodes=4, num_prompts=1, room=508) == 17


def test_a_step_without_prompt_rows_never_leaves_them_out_for_good() -> None:
    """Its decodes may bring drafts, and then it is not observed."""
    pace = PrefillPace()
    pace.observe(0.01, num_decodes=4, num_prefill_rows=0)
    for _ in range(20):
        pace.observe(0.02, num_decodes=4, num_prefill_rows=10)
    assert pace.prefill_rows(num_decodes=4, num_prompts=1, room=508) == 0
    assert pace.prefill_rows(num_decodes=4, num_prompts=1, room=508) > 0


def test_a_step_of_prompt_rows_alone_is_bounded_in_time() -> None:
    """On a slow machine who arrives or leaves does not wait for a full batch. One disturbed step changes little."""
    pace = PrefillPace()
    for _ in range(40):
        pace.observe(5.0, num_decodes=0, num_prefill_rows=500)
    assert pace.prefill_rows(num_decodes=0, num_prompts=1, room=512) == 200  # two seconds', at 10 ms each
    pace.observe(90.0, num_decodes=0, num_prefill_rows=100)
    assert pace.prefill_rows(num_decodes=0, num_prompts=1, room=512) == 181
    for _ in range(60):
        pace.observe(64.0, num_decodes=0, num_prefill_rows=64)
    assert pace.prefill_rows(num_decodes=0, num_prompts=1, room=512) == 64, (
        "fewer would read all weights for little work"
    )
    assert pace.prefill_rows(num_decodes=0, num_prompts=1, room=20) == 20
    for _ in range(60):
        pace.observe(0.1, num_decodes=0, num_prefill_rows=64)
    assert pace.prefill_rows(num_decodes=0, num_prompts=1, room=512) == 512
