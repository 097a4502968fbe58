"""Speculation changes no bit of an answer, whatever is drafted; and it drafts what followed the longest match."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openherd.engine.backends import make_backend
from openherd.engine.engine import Engine
from openherd.engine.pace import RowTimes
from openherd.engine.protocols import Mask
from openherd.engine.sequence import Request
from openherd.engine.speculate import KEPT, MAX_DRAFT, MAX_DRAFTING_SEQS, PromptLookup, Speculation
from openherd.errors import OptionError
from openherd.messages import FinishReason
from openherd.options import SamplingParams
from tests.unit.engine.drafters import Hostile, Knowing, draft_always
from tests.unit.engine.test_protocols import Recorder, Scripted, favour
from tests.unit.engine.tiny_model import FULL, TINY, Answer, drain, prompt, request, run, tiny_engine
from tests.unit.engine.token_cache_backend import VOCAB, expected_answer, next_token, token_cache_engine

BACKENDS = ["reference", "native"]


@pytest.mark.parametrize(
    ("ids", "n", "draft"),
    [
        ([1, 2, 3, 4, 1, 2], 2, [3, 4]),
        ([7, 2, 3, 9, 2, 5, 7, 2], 1, [3]),  # the longer match, though the shorter one is later
        ([2, 3, 2, 5, 2], 1, [5]),  # of equal ones the latest
        ([1, 2, 3, 2, 3], 5, [2, 3, 2, 3, 2]),  # the text repeats itself
        ([4, 4], 3, [4, 4, 4]),
        ([1, 2, 3], 4, []),
        ([1], 4, []),
    ],
)
def test_the_draft_is_what_followed_the_longest_match(ids: list[int], n: int, draft: list[int]) -> None:
    assert list(PromptLookup().propose(ids, n)) == draft


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.integers(1, 8), st.data())
def test_an_index_that_grows_drafts_what_a_new_one_would(ids: list[int], n: int, data: st.DataObject) -> None:
    lookup = PromptLookup()
    for end in sorted(data.draw(st.sets(st.integers(1, len(ids))))):
        lookup.propose(ids[:end], n)
    assert list(lookup.propose(ids, n)) == list(PromptLookup().propose(ids, n))


def test_the_rate_follows_what_came_and_learns_from_unchecked_proposals() -> None:
    speculation = Speculation(PromptLookup())
    speculation.observe([1, 2, 3], [1, 2, 9])
    assert speculation.num_tested == pytest.approx(((2 * KEPT + 1) * KEPT + 1) * KEPT + 1)
    assert speculation.num_right == pytest.approx((((1 * KEPT + 1) * KEPT) + 1) * KEPT)
    for _ in range(40):
        speculation.observe([1, 2], [1])
    assert speculation.rate > 0.95
    for _ in range(40):
        speculation.observe([1, 2], [5])
    assert speculation.rate < 0.05


def test_row_times_scale_what_is_known_and_forget_a_disturbed_step() -> None:
    times = RowTimes()
    assert (times.seconds(1), times.seconds(4)) == (1.0, 1.75)
    times.observe(4, 1.75e-3)
    assert times.seconds(1) == pytest.approx(1e-3)
    assert times.seconds(16) == pytest.approx(4.75e-3)
    times.observe(1, 10.0)
    assert times.seconds(1) <= 1.5e-3
    for _ in range(20):
        times.observe(4, 10.0)
    assert times.seconds(4) > 3 * times.seconds(1)
    for _ in range(300):
        times.observe(1, 1e-3)
    assert times.seconds(4) < 1.9e-3, "a number of rows that was once disturbed is tried again"
    times.observe(8, 1.4e-3)
    assert times.seconds(1) <= times.seconds(8)


@pytest.mark.parametrize("slope", [0.02, 0.1, 0.5])
def test_row_times_learn_what_rows_cost_on_this_machine(slope: float) -> None:
    """Numbers of rows that were never seen follow from two that were."""
    times = RowTimes()
    for rows in (1, 3) * 30:
        times.observe(rows, 2e-3 * (1 + slope * (rows - 1)))
    for rows in range(1, 9):
        assert times.seconds(rows) == pytest.approx(2e-3 * (1 + slope * (rows - 1)), rel=0.2)


def truth(seed: int) -> Callable[[Sequence[int]], int]:
    return lambda ids: next_token(tuple(ids), (seed, len(ids)))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    num_blocks=st.integers(8, 40),
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=6),
    max_tokens=st.integers(1, 60),
)
def test_hostile_drafts_change_no_answer(seed: int, num_blocks: int, lengths: list[int], max_tokens: int) -> None:
    engine = token_cache_engine(
        num_blocks=num_blocks,
        context=min(128, 16 * num_blocks),
        max_batch_tokens=32,
        make_drafter=lambda: Hostile(truth(5), VOCAB, seed),
    )
    draft_always(engine)
    prompts = [prompt(length, seed % 1000 + i, vocab_size=VOCAB) for i, length in enumerate(lengths)]
    answers = run(engine, [Request(ids, SamplingParams(max_tokens=max_tokens, seed=5)) for ids in prompts])
    for ids, answer in zip(prompts, answers, strict=True):
        assert answer.token_ids == expected_answer(ids, 5, max_tokens)
        assert answer.finish_reason is FinishReason.LENGTH
    assert engine.stats.num_free_blocks == num_blocks
    assert engine.stats.num_generated_tokens == max_tokens * len(prompts)
    assert engine.stats.num_accepted_tokens <= engine.stats.num_drafted_tokens


def test_drafts_are_accepted_and_rejected_and_save_steps() -> None:
    engine = token_cache_engine(make_drafter=lambda: Hostile(truth(5), VOCAB, 1))
    draft_always(engine)
    ids = prompt(20, 1, vocab_size=VOCAB)
    answer = run(engine, [Request(ids, SamplingParams(max_tokens=200, seed=5))])[0]
    assert answer.token_ids == expected_answer(ids, 5, 200)
    assert answer.last is not None
    stats = engine.stats
    assert 50 < stats.num_accepted_tokens < stats.num_drafted_tokens
    assert stats.num_steps == 200 - stats.num_accepted_tokens


def test_under_preemption_hostile_drafts_evict_nobody() -> None:
    """A draft takes only blocks that nobody needs, so preemptions stay those of plain decoding, and answers too."""
    prompts = [prompt(17, i, vocab_size=VOCAB) for i in range(12)]
    counts = []
    for speculate in (False, True):
        engine = token_cache_engine(num_blocks=16, make_drafter=lambda: Hostile(truth(5), VOCAB, 3))
        draft_always(engine)
        params = SamplingParams(max_tokens=60, seed=5, speculate=speculate)
        for ids, answer in zip(prompts, run(engine, [Request(ids, params) for ids in prompts]), strict=True):
            assert answer.token_ids == expected_answer(ids, 5, 60)
        counts.append((engine.stats.num_preemptions > 0, engine.stats.num_accepted_tokens > 0))
    assert counts == [(True, False), (True, True)]


def test_a_stop_token_inside_a_run_ends_the_answer_there() -> None:
    ids = prompt(20, 1, vocab_size=VOCAB)
    right = expected_answer(ids, 5, 40)
    for place in range(1, 12):
        engine = token_cache_engine(
            stop_ids=(right[place],), make_drafter=lambda: Knowing([(*ids, *right)], wrong_every=10**6)
        )
        draft_always(engine)
        (answer,) = run(engine, [Request(ids, SamplingParams(max_tokens=40, seed=5))])
        assert answer.token_ids == right[: right.index(right[place]) + 1]
        assert answer.finish_reason is FinishReason.STOP
        assert answer.last is not None
        assert answer.last.stop_match == right[place]
        assert engine.stats.num_generated_tokens == len(answer.token_ids)
        assert engine.stats.num_free_blocks == engine.stats.num_total_blocks


def test_accepted_blocks_are_found_again_and_rejected_ones_are_not() -> None:
    """A second turn that continues the answer finds every full block of it, and still reads the right past."""
    ids = prompt(20, 1, vocab_size=VOCAB)
    engine = token_cache_engine(make_drafter=lambda: Hostile(truth(5), VOCAB, 2))
    draft_always(engine)
    (first,) = run(engine, [Request(ids, SamplingParams(max_tokens=90, seed=5))])
    longer = (*ids, *first.token_ids, 3, 4, 5)
    (second,) = run(engine, [Request(longer, SamplingParams(max_tokens=40, seed=5))])
    assert second.token_ids == expected_answer(longer, 5, 40)
    assert second.last is not None
    assert second.last.cached_tokens == (len(ids) + 89) // 16 * 16


class OddThenEven:
    """Allows tokens by the parity of the answer's length and ends it (token 0 only) after eleven: a small grammar."""

    def __init__(self, num: int = 0) -> None:
        self.num = num

    def next(self, ids: Sequence[int]) -> Mask:
        bits = np.zeros(-(-TINY.vocab_size // 32), np.uint32)
        for token in range(1, TINY.vocab_size) if self.num < 11 else (0,):
            if token % 2 == self.num % 2 or token == 0:
                bits[token // 32] |= np.uint32(1 << token % 32)
        return Mask(bits)

    def accept(self, ids: Sequence[int]) -> None:
        for token in ids:
            if self.num < 11 and token % 2 != self.num % 2:
                raise ValueError("the grammar has no such token here")
            self.num += 1

    def rollback(self, n: int) -> None:
        self.num -= n

    def fork(self) -> OddThenEven:
        return OddThenEven(self.num)


@dataclass(frozen=True)
class Hashed:
    """A key that depends on all tokens before it, as a watermark's does."""

    def key(self, ids: Sequence[int], choice: int, position: int) -> tuple[int, int]:
        assert position == len(ids)
        return hash(tuple(ids)) % 2**64, choice


def shaped_requests() -> list[Request]:
    """Every kind of draw, in prompts of different lengths."""
    kinds: list[dict[str, Any]] = [
        {},
        {"temperature": 0.0},
        {"temperature": 0.7, "top_p": 0.9, "top_k": 40},
        {"temperature": 1.3, "repetition_penalty": 1.2, "frequency_penalty": 0.3, "presence_penalty": 0.2},
        {"temperature": 0.0, "frequency_penalty": 1.5},
        {"logit_bias": {3: 4.0, 5: -100.0}},
        {"logprobs": None},
        {"logprobs": 5, "min_p": 0.02},
    ]
    plain = [request(10 + 7 * i, i, max_tokens=40, **kind) for i, kind in enumerate(kinds)]
    grammar = replace(request(30, 20, max_tokens=40, stop_token_ids=(0,)), processors=(OddThenEven(),))
    steered = replace(request(30, 21, max_tokens=40), processors=(Scripted([favour(3, by=2.0), favour(9, by=2.0)]),))
    return [*plain, grammar, steered, replace(request(25, 22, max_tokens=40), noise=Hashed())]


def answer_all(engine: Engine, *, speculate: bool) -> list[Answer]:
    """Three choices of each."""
    seq_ids = []
    for asked in shaped_requests():
        params = replace(asked.params, n=3, speculate=speculate)
        seq_ids += engine.add_choices(replace(asked, params=params).choices())
    answers = drain(engine)
    return [answers[seq_id] for seq_id in seq_ids]


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_kind_of_draw_is_bit_equal_to_plain_decoding(backend: str) -> None:
    plain = answer_all(tiny_engine(backend=make_backend(backend, 1), max_seqs=1), speculate=False)
    assert len({answer.bits for answer in plain}) > 20, "choices differ, so a draft of one is wrong for another"
    prompts = [asked.prompt_ids for asked in shaped_requests() for _ in range(3)]
    known = [(*ids, *answer.token_ids) for ids, answer in zip(prompts, plain, strict=True)]
    loads: list[dict[str, int]] = [
        {"max_seqs": 1},
        {"max_seqs": 6, "max_batch_tokens": 24},
        {"max_seqs": 12, "num_blocks": 20},
    ]
    for load in loads:
        engine = tiny_engine(backend=make_backend(backend, 2), make_drafter=lambda: Knowing(known, 7), **load)
        draft_always(engine)
        answers = answer_all(engine, speculate=True)
        assert [answer.bits for answer in answers] == [answer.bits for answer in plain], load
        assert 100 < engine.stats.num_accepted_tokens < engine.stats.num_drafted_tokens
        assert (engine.stats.num_preemptions > 0) == ("num_blocks" in load)
        assert engine.stats.num_generated_tokens == sum(len(answer.token_ids) for answer in plain)
        engine.close()


def test_a_processor_accepts_what_is_drawn_once_and_its_failure_on_a_draft_ends_nothing() -> None:
    (plain,) = run(tiny_engine(), [replace(request(20, 1), processors=(Scripted([None]),))])
    known = [(*prompt(20, 1), *plain.token_ids)]

    class Fragile(Scripted):
        """A fork cannot go on after two tokens more than the answer has."""

        def fork(self) -> Scripted:
            shapes: list[object] = [None] * (len(self.accepted) + 2)
            return Scripted([*shapes, RuntimeError("too far")], list(self.accepted))

    processor = Fragile([None])
    engine = tiny_engine(make_drafter=lambda: Knowing(known, 10**6))
    draft_always(engine)
    (answer,) = run(engine, [replace(request(20, 1), processors=(processor,))])
    assert answer.bits == plain.bits
    assert processor.accepted == plain.token_ids
    assert engine.stats.num_accepted_tokens > 0


def test_finish_inside_a_run_rolls_back_to_what_is_kept() -> None:
    (plain,) = run(tiny_engine(), [replace(request(20, 1), processors=(Scripted([None]),))])
    processor = Scripted([None])
    engine = tiny_engine(make_drafter=lambda: Knowing([(*prompt(20, 1), *plain.token_ids)], 10**6))
    draft_always(engine)
    seq_id = engine.add_request(replace(request(20, 1), processors=(processor,)))
    outputs = [*engine.step(), *engine.step()]
    assert [len(output.token_ids) for output in outputs] == [1, MAX_DRAFT + 1]
    assert (outputs[1].num_drafted, outputs[1].num_accepted) == (MAX_DRAFT, MAX_DRAFT)
    engine.finish(seq_id, FinishReason.STOP, keep=3)
    assert processor.accepted == plain.token_ids[:3]
    assert engine.stats.num_free_blocks == engine.stats.num_total_blocks


def test_nothing_is_drafted_where_it_is_not_wanted_watched_or_worth_it() -> None:
    (plain,) = run(tiny_engine(), [request(20, 1)])
    known = [(*prompt(20, 1), *plain.token_ids)]
    for asked in (request(20, 1, speculate=False), replace(request(20, 1), taps=(Recorder(),))):
        engine = tiny_engine(make_drafter=lambda: Knowing(known))
        draft_always(engine)
        assert run(engine, [asked])[0].bits == plain.bits
        assert engine.stats.num_drafted_tokens == 0
    crowd = tiny_engine(max_seqs=MAX_DRAFTING_SEQS + 1, max_batch_tokens=512, make_drafter=lambda: Knowing(known))
    draft_always(crowd)
    run(crowd, [request(20, 1) for _ in range(MAX_DRAFTING_SEQS + 1)])
    assert crowd.stats.num_drafted_tokens == 0


def test_rows_that_cost_as_much_as_steps_are_not_drafted() -> None:
    class DearRows(RowTimes):
        def seconds(self, rows: int) -> float:
            return float(rows)

    engine = tiny_engine()
    engine._scheduler._speculator.times = DearRows()
    run(engine, [Request((1, 2, 3, 1, 2, 3, 1), SamplingParams(max_tokens=40, **{**FULL, "temperature": 0.0}))])
    assert engine.stats.num_drafted_tokens == 0


class Broken:
    """Raises, or answers with what is no draft, once the sequence has `after` tokens."""

    def __init__(self, answer: Any, after: int) -> None:
        self._answer = answer
        self._after = after

    def propose(self, ids: Sequence[int], n: int) -> Any:
        if len(ids) < self._after:
            return ()
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


@pytest.mark.parametrize(
    "answer", [RuntimeError("no guess"), None, 7, [1.5], ["a"], [None, 3], iter([1, 2])], ids=lambda a: type(a).__name__
)
def test_a_broken_drafter_ends_its_own_request_and_no_other(answer: Any) -> None:
    ids = prompt(20, 1, vocab_size=VOCAB)
    drafters: list[Any] = [Broken(answer, after=25), Hostile(truth(5), VOCAB, 1), Hostile(truth(5), VOCAB, 2)]
    engine = token_cache_engine(make_drafter=lambda: drafters.pop(0))
    draft_always(engine)
    params = SamplingParams(max_tokens=30, seed=5)
    broken, *others = run(engine, [Request(ids, params), *(Request(ids, params, salt=bytes(i)) for i in (1, 2))])
    assert broken.finish_reason is FinishReason.ERROR
    assert broken.last is not None
    assert type(answer).__name__ in str(broken.last.error) or "TypeError" in str(broken.last.error)
    assert broken.token_ids == expected_answer(ids, 5, 30)[:5]
    for other in others:
        assert (other.finish_reason, other.token_ids) == (FinishReason.LENGTH, expected_answer(ids, 5, 30))
    assert engine.stats.num_free_blocks == engine.stats.num_total_blocks


def test_a_drafter_that_cannot_be_made_ends_its_request() -> None:
    def refuse() -> Any:
        raise RuntimeError("no drafter")

    answer = run(token_cache_engine(make_drafter=refuse), [request(20, 1)])[0]
    assert answer.finish_reason is FinishReason.ERROR
    assert answer.last is not None
    assert answer.last.error == "RuntimeError: no drafter"


def test_the_switch_is_true_or_false() -> None:
    with pytest.raises(OptionError, match="speculate must be true or false, not 'yes'"):
        SamplingParams(speculate="yes")  # type: ignore[arg-type]
