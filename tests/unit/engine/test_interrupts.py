"""Ctrl-C at any place of a step: nothing leaks, no token is lost or comes twice, answers are as they would be."""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import numpy as np
import pytest

import openherd.engine
from openherd.engine.engine import Engine
from openherd.engine.pace import PrefillPace
from openherd.engine.protocols import SparseBias
from openherd.engine.sequence import Request
from openherd.messages import FinishReason
from openherd.options import SamplingParams
from tests.unit.engine.drafters import Knowing, draft_always
from tests.unit.engine.tiny_model import Answer, prompt
from tests.unit.engine.token_cache_backend import VOCAB, token_cache_engine

NUM_PLACES = 150
FOLDER = str(Path(openherd.engine.__file__).parent)


class Keeping:
    """A processor that shapes nothing and remembers what was drawn."""

    def __init__(self) -> None:
        self.accepted: list[int] = []

    def next(self, ids: Sequence[int]) -> SparseBias:
        return SparseBias(np.zeros(0, np.int32), np.zeros(0, np.float32))

    def accept(self, ids: Sequence[int]) -> None:
        self.accepted += ids

    def rollback(self, n: int) -> None: ...

    def fork(self) -> Keeping:
        return Keeping()


def requests() -> list[list[Request]]:
    """Choices that fork, prompts that begin alike, penalties, and scores, in a pool too small for all."""
    asked = []
    for i, (length, n) in enumerate([(37, 3), (60, 1), (37, 1), (5, 2), (90, 1)]):
        params = SamplingParams(max_tokens=30, seed=i, n=n, presence_penalty=0.5 * (i % 2))
        ids = prompt(length, 0, vocab_size=VOCAB)
        asked.append(Request(ids, params, processors=(Keeping(),), prompt_logprobs=i == 1).choices())
    return asked


class Interrupt:
    """Raises KeyboardInterrupt where Python would, at the n-th call or return from C inside the engine's steps."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __call__(self, frame: FrameType, event: str, arg: object) -> None:
        if event in ("call", "c_return") and frame.f_code.co_filename.startswith(FOLDER):
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt

    @property
    def was_raised(self) -> bool:
        return self.left <= 0


def run(engine: Engine, interrupt: Interrupt) -> tuple[list[Answer], list[Request]]:
    """Answers to all requests; a step that is interrupted is simply followed by the next."""
    asked = requests()
    seq_ids = [seq_id for choices in asked for seq_id in engine.add_choices(choices)]
    answers: dict[int, Answer] = {}
    while engine.has_work:
        sys.setprofile(None if interrupt is None or interrupt.was_raised else interrupt)
        try:
            outputs = engine.step()
        except KeyboardInterrupt:
            outputs = []
        finally:
            sys.setprofile(None)
        for output in outputs:
            answers.setdefault(output.seq_id, Answer()).take(output)
    return [answers[seq_id] for seq_id in seq_ids], [request for choices in asked for request in choices]


def started(known: Sequence[Sequence[int]] = ()) -> Engine:
    """`known` texts are drafted from, now and then wrongly."""
    engine = token_cache_engine(num_blocks=18, max_seqs=6, make_drafter=lambda: Knowing(known, wrong_every=2))
    draft_always(engine)
    return engine


def test_an_interrupt_at_any_place_changes_no_answer_and_leaks_nothing() -> None:
    answers, asked = run(started(), Interrupt(at=10**9))
    known = [(*r.prompt_ids, *answer.token_ids) for r, answer in zip(asked, answers, strict=True)]
    calm, never = started(known), Interrupt(at=10**9)
    expected, _ = run(calm, never)
    assert [answer.bits for answer in expected] == [answer.bits for answer in answers]
    assert 0 < calm.stats.num_accepted_tokens < calm.stats.num_drafted_tokens
    num_places = 10**9 - never.left
    assert calm.stats.num_preemptions > 0
    assert calm.stats.num_forks > 0
    places = random.Random(1).sample(range(1, num_places), NUM_PLACES)
    num_raised = 0
    for place in places:
        engine, interrupt = started(known), Interrupt(place)
        answers, asked = run(engine, interrupt)
        num_raised += interrupt.was_raised
        for answer, request, wanted in zip(answers, asked, expected, strict=True):
            (processor,) = request.processors
            assert isinstance(processor, Keeping)
            if answer.finish_reason is FinishReason.ERROR:  # interrupted while the processor took a token in
                assert answer.token_ids == wanted.token_ids[: len(answer.token_ids)], place
                continue
            assert answer.bits == wanted.bits, place
            assert answer.prompt_logprobs == wanted.prompt_logprobs, place
            assert processor.accepted == answer.token_ids, place
        assert sum(answer.finish_reason is FinishReason.ERROR for answer in answers) <= 1
        assert (engine.stats.num_free_blocks, engine.stats.num_running, engine.stats.num_waiting) == (18, 0, 0)
    assert num_raised > 0.9 * NUM_PLACES, "chunks follow the clock, so runs differ a little in length"


def test_an_aborted_sequence_says_nothing_after_an_interrupted_step(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    engine = started()
    seq_ids = [engine.add_choices(choices)[0] for choices in requests()]
    for _ in range(4):
        engine.step()
    with monkeypatch.context() as patch:
        patch.setattr(PrefillPace, "observe", interrupted)  # called once the outputs are made
        with pytest.raises(KeyboardInterrupt):
            engine.step()
    engine.abort(seq_ids[0])
    engine.finish(seq_ids[1], FinishReason.STOP, keep=0)
    outputs = engine.step()
    assert outputs
    assert not {output.seq_id for output in outputs} & set(seq_ids[:2])
