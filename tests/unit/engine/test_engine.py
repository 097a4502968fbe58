"""The engine's contract with its caller: how answers end, what is refused, and what survives a failure."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from openherd.checkpoints.source import Tensor
from openherd.engine.backends import make_backend
from openherd.engine.engine import Engine
from openherd.engine.sequence import Request
from openherd.errors import CapacityError, ContextLengthError, EngineError, InputError, OptionError
from openherd.messages import FinishReason
from openherd.options import EngineOptions, SamplingParams
from tests.parity.random_llama import float_source
from tests.unit.engine.tiny_model import TINY, drain, prompt, request, run, tiny_engine, tiny_weights
from tests.unit.engine.token_cache_backend import (
    CONFIG,
    VOCAB,
    TokenCacheBackend,
    expected_answer,
    token_cache_engine,
)

ANSWER = expected_answer((1, 2, 3), seed=0, num_tokens=40)


def ask(max_tokens: int | None = 40, **params: object) -> Request:
    return Request((1, 2, 3), SamplingParams(max_tokens=max_tokens, seed=0, **params))


def test_an_answer_ends_after_max_tokens() -> None:
    answer = run(token_cache_engine(), [ask(7)])[0]
    assert answer.token_ids == ANSWER[:7]
    assert answer.finish_reason is FinishReason.LENGTH


def test_an_answer_ends_when_the_context_is_full() -> None:
    answer = run(token_cache_engine(context=32), [ask(None)])[0]
    assert answer.token_ids == ANSWER[:29]
    assert answer.finish_reason is FinishReason.LENGTH


def test_an_end_token_ends_the_answer_and_is_named() -> None:
    answer = run(token_cache_engine(stop_ids=(ANSWER[5],)), [ask()])[0]
    assert answer.token_ids == ANSWER[: ANSWER.index(ANSWER[5]) + 1]
    assert answer.finish_reason is FinishReason.STOP
    assert answer.last is not None
    assert answer.last.stop_match == ANSWER[5]


def test_ignore_eos_goes_past_end_tokens_but_not_past_asked_stop_tokens() -> None:
    engine = token_cache_engine(stop_ids=(ANSWER[5],))
    assert run(engine, [ask(20, ignore_eos=True)])[0].token_ids == ANSWER[:20]
    stopped = run(engine, [ask(20, ignore_eos=True, stop_token_ids=(ANSWER[9],))])[0]
    assert stopped.token_ids == ANSWER[:10]
    assert stopped.finish_reason is FinishReason.STOP


def test_a_stop_token_of_the_prompt_does_not_end_anything() -> None:
    answer = run(token_cache_engine(stop_ids=(3,)), [ask(4)])[0]
    assert answer.token_ids == ANSWER[:4]


def test_finish_ends_a_sequence_before_its_next_step() -> None:
    engine = token_cache_engine()
    seq_id = engine.add_request(ask())
    for _ in range(5):
        engine.step()
    engine.finish(seq_id, FinishReason.STOP, keep=2)
    assert not engine.has_work
    assert engine.stats.num_finished == 1
    assert engine.stats.num_free_blocks == engine.stats.num_total_blocks
    engine.finish(seq_id, FinishReason.STOP, keep=2)  # as when it ended by itself in the same step


def test_finish_refuses_to_keep_what_was_not_drawn() -> None:
    engine = token_cache_engine()
    seq_id = engine.add_request(ask())
    engine.step()
    with pytest.raises(ValueError, match="cannot keep 2 of 1 tokens"):
        engine.finish(seq_id, FinishReason.STOP, keep=2)
    assert engine.has_work


def test_without_a_seed_one_is_chosen_and_reported_and_gives_the_same_answer_again() -> None:
    engine = tiny_engine()
    first = [run(engine, [request(20, 1, seed=None)])[0] for _ in range(2)]
    assert first[0].last is not None
    assert first[1].last is not None
    assert first[0].last.seed != first[1].last.seed
    again = run(engine, [request(20, 1, seed=first[0].last.seed)])[0]
    assert again.bits == first[0].bits


def test_choices_of_one_request_share_the_chosen_seed_and_differ() -> None:
    engine = tiny_engine()
    seq_ids = engine.add_choices(request(20, 1, seed=None, n=3).choices())
    answers = drain(engine)
    seeds = {answers[seq_id].last.seed for seq_id in seq_ids}
    assert len(seeds) == 1
    assert len({tuple(answers[seq_id].token_ids) for seq_id in seq_ids}) == 3


def test_the_first_choice_is_what_a_single_request_answers() -> None:
    alone = run(tiny_engine(), [request(37, 1)])[0]
    engine = tiny_engine()
    seq_ids = engine.add_choices(request(37, 1, n=3).choices())
    assert drain(engine)[seq_ids[0]].bits == alone.bits


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        (Request(()), InputError, "no tokens"),
        (Request((5, -1)), OptionError, r"the prompt has a token id outside the vocabulary, 0\.\.996"),
        (Request((5, VOCAB)), OptionError, "the prompt has a token id outside"),
        (Request((1,) * 256), ContextLengthError, "256 tokens and the context holds 256, of which at least one"),
        (Request((1,) * 257, generate=False), ContextLengthError, "257 tokens and the context holds 256"),
        (Request((1,), SamplingParams(logit_bias={VOCAB: 1.0})), OptionError, "logit_bias has a token id outside"),
        (Request((1,), SamplingParams(stop_token_ids=(VOCAB,))), OptionError, "stop_token_ids has a token id outside"),
        (Request((1,), adapter=0), InputError, "no adapter 0 is loaded"),
    ],
)
def test_what_cannot_run_is_refused_when_added(asked: Request, error: type[Exception], message: str) -> None:
    engine = token_cache_engine()
    with pytest.raises(error, match=message):
        engine.add_request(asked)
    assert not engine.has_work


def test_a_fork_must_continue_its_parents_prompt() -> None:
    engine = token_cache_engine()
    parent = engine.add_request(ask())
    for changes in ({"prompt_ids": (1, 2, 4)}, {"salt": b"other"}):
        with pytest.raises(InputError, match="its parent's prompt"):
            engine.add_request(replace(ask(), fork_of=parent, **changes))


def test_a_pool_too_small_for_the_asked_context_is_refused() -> None:
    options = EngineOptions(context=1024, kv_memory=1000)
    with pytest.raises(CapacityError, match="a context of 1,024 tokens needs"):
        Engine(TokenCacheBackend(), CONFIG, {}, options=options)


def nothing_to_draw() -> dict[str, Tensor]:
    """The tiny model with a head that gives NaN for every token."""
    weights = tiny_weights()
    head = weights["lm_head.weight"]
    return {**weights, **float_source({"lm_head.weight": np.full(head.shape, np.nan, np.float32)})}


@pytest.mark.parametrize("backend", ["reference", "native"])
def test_a_model_without_finite_logits_ends_with_an_error_that_says_so(backend: str) -> None:
    engine = tiny_engine(backend=make_backend(backend, 1), weights=nothing_to_draw())
    asked = [request(20, 1, logprobs=2), request(20, 2, temperature=0.0)]
    for answer in run(engine, asked):
        assert (answer.finish_reason, answer.token_ids, answer.logprobs) == (FinishReason.ERROR, [], [])
        assert answer.last is not None
        assert answer.last.error == "no token can be drawn: the model's logits are not finite numbers"
    (scored,) = run(engine, [replace(request(20, 3), prompt_logprobs=True, generate=False)])
    assert (scored.finish_reason, scored.prompt_logprobs) == (FinishReason.ERROR, None)
    assert scored.last is not None
    assert scored.last.error == "the model's logits are not finite numbers"
    assert engine.stats.num_generated_tokens == 0
    assert engine.stats.num_free_blocks == engine.stats.num_total_blocks


def test_choices_are_queued_all_or_none() -> None:
    engine = token_cache_engine()
    good = ask(n=2)
    first, second = good.choices()
    with pytest.raises(InputError, match="no adapter 5"):
        engine.add_choices([first, replace(second, adapter=5)])
    assert not engine.has_work


def test_gauges_tell_of_a_request_before_its_first_step() -> None:
    engine = token_cache_engine()
    engine.add_request(ask())
    assert engine.stats.num_waiting == 1


def test_when_the_backend_raises_the_batch_fails_and_the_engine_goes_on() -> None:
    backend = TokenCacheBackend()
    engine = token_cache_engine(backend=backend, max_seqs=2)
    seq_ids = [engine.add_request(ask()) for _ in range(3)]
    engine.step()
    backend.fail_next = True
    failed = engine.step()
    assert [output.seq_id for output in failed] == seq_ids[:2]
    assert {output.finish_reason for output in failed} == {FinishReason.ERROR}
    assert failed[0].error == "MemoryError: no memory for the step"
    assert drain(engine)[seq_ids[2]].token_ids == ANSWER
    assert engine.stats.num_free_blocks == engine.stats.num_total_blocks


def test_an_interrupt_inside_the_backend_leaves_every_answer_as_it_would_have_been() -> None:
    """Ctrl-C arrives at any call; the chat stops one answer by `abort` and the engine must go on with the others."""

    class Interrupted(TokenCacheBackend):
        num_calls = 0

        def sample(self, *args: object) -> object:
            self.num_calls += 1
            if self.num_calls == 3:
                raise KeyboardInterrupt
            return super().sample(*args)

    engine = token_cache_engine(backend=Interrupted())
    seq_ids = [engine.add_request(ask()), engine.add_request(ask())]
    first = [output.token_ids[0] for _ in range(2) for output in engine.step() if output.seq_id == seq_ids[1]]
    with pytest.raises(KeyboardInterrupt):
        engine.step()
    engine.abort(seq_ids[0])
    assert first + drain(engine)[seq_ids[1]].token_ids == ANSWER


def test_close_aborts_what_is_left_and_later_calls_say_so() -> None:
    backend = TokenCacheBackend()
    engine = token_cache_engine(backend=backend)
    engine.add_request(ask())
    engine.step()
    engine.close()
    engine.close()
    assert backend.is_closed
    assert engine.stats.num_aborted == 1
    for call in (engine.step, lambda: engine.add_request(ask())):
        with pytest.raises(EngineError, match="the engine is closed"):
            call()


def test_penalties_count_the_answer_and_the_prompt() -> None:
    """Greedy with a huge penalty on everything seen: no token may come twice, and none of the prompt."""
    engine = tiny_engine()
    asked = Request(prompt(10, 1), SamplingParams(temperature=0.0, max_tokens=60, repetition_penalty=100.0))
    seen = [*asked.prompt_ids, *run(engine, [asked])[0].token_ids]
    repeats_penalised = len(seen) - len(set(seen))
    plain = Request(prompt(10, 1), SamplingParams(temperature=0.0, max_tokens=60))
    seen = [*plain.prompt_ids, *run(engine, [plain])[0].token_ids]
    assert repeats_penalised < len(seen) - len(set(seen))
    present = replace(plain, params=replace(plain.params, presence_penalty=100.0))
    answer = run(engine, [present])[0].token_ids
    assert len(set(answer)) == len(answer), "the presence penalty of 100 outweighs every logit"


def test_logprobs_come_with_the_asked_number_of_alternatives() -> None:
    engine = tiny_engine()
    requests = [request(9, i, logprobs=asked) for i, asked in enumerate((None, 0, 1, 5))]
    for asked, answer in zip((None, 0, 1, 5), run(engine, requests), strict=True):
        assert len(answer.logprobs) == (0 if asked is None else len(answer.token_ids))
        for token, entry in zip(answer.token_ids, answer.logprobs, strict=False):
            assert entry.token_id == token
            assert len(entry.top) == asked
            assert [p for _, p in entry.top] == sorted((p for _, p in entry.top), reverse=True)
            assert entry.logprob <= (entry.top[0][1] if entry.top else 0.0)


def test_a_backend_is_chosen_by_name() -> None:
    engine = Engine(make_backend("reference"), TINY, tiny_weights(), options=EngineOptions(context=64, max_seqs=2))
    assert engine.numerics_id.startswith("reference/")
    with pytest.raises(OptionError, match="backend must be native or reference, not 'cuda'"):
        make_backend("cuda")
