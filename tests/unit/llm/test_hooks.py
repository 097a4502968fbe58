"""Processors and guards through LLM: one for each answer, and a broken one ends its own answer only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from openherd import LLM, Message
from openherd.engine.protocols import DenseBias
from openherd.llm import Decision, Hooks
from openherd.messages import FinishReason, Origin, Span
from tests.unit.llm.tiny_llm import CONFIG, PROMPTS, bits, params, tiny_llm


class Guard:
    """Refuses prompts about secrets; stops the answer after a number of characters."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.prompt: Sequence[Span] = ()

    def on_prompt(self, spans: Sequence[Span]) -> Decision:
        self.prompt = spans
        return Decision.STOP if any("secret" in span.text for span in spans) else Decision.RELEASE

    def on_text(self, held: str, final: bool) -> Decision:
        self.most -= len(held)
        return Decision.RELEASE if self.most >= 0 else Decision.STOP

    def fork(self) -> Guard:
        return Guard(self.most)


def test_guard_stops_an_answer(llm: LLM) -> None:
    (free,) = llm.generate("hello", params())
    answers = llm.generate("hello", params(n=2), guard=Guard(5))
    assert [a.finish_reason for a in answers] == [FinishReason.CONTENT_FILTER] * 2
    assert free.text.startswith(answers[0].text)
    assert 0 < len(answers[0].text) <= 5
    assert len(answers[0].token_ids) < answers[0].usage.completion_tokens


def test_guard_refuses_a_prompt_before_anything_is_computed(llm: LLM) -> None:
    guard = Guard(100)
    answer = llm.chat([Message("system", "be kind"), Message("user", "a secret")], params(), guard=guard)
    assert (answer.text, answer.finish_reason) == ("", FinishReason.CONTENT_FILTER)
    assert llm.stats.num_steps == 0
    assert {Origin.SYSTEM, Origin.USER, Origin.TEMPLATE} == {span.origin for span in guard.prompt}


class Biased:
    """Adds to every logit; the token it wants is another each time, and it counts what it was told."""

    def __init__(self) -> None:
        self.accepted: list[int] = []

    def next(self, ids: Sequence[int]) -> DenseBias:
        values = np.zeros(CONFIG.vocab_size, np.float32)
        values[65 + len(self.accepted)] = 1000
        return DenseBias(values)

    def accept(self, ids: Sequence[int]) -> None:
        self.accepted += ids

    def rollback(self, n: int) -> None: ...

    def fork(self) -> Biased:
        return Biased()


@pytest.mark.parametrize("backend", ["reference", "native"])
def test_a_processor_of_many_prompts_is_one_for_each(backend: str) -> None:
    with tiny_llm(backend=backend) as llm:
        processor = Biased()
        answers = llm.generate(PROMPTS, params(n=2, max_tokens=5), hooks=Hooks(processors=(processor,)))
        assert {answer.token_ids for answer in answers} == {(65, 66, 67, 68, 69)}
        assert len(processor.accepted) == 5


def test_a_guard_of_many_prompts_is_one_for_each(llm: LLM) -> None:
    together = llm.generate(PROMPTS, params(), guard=Guard(9))
    alone = [llm.generate(prompt, params(), guard=Guard(9))[0] for prompt in PROMPTS]
    assert [bits(c) for c in together] == [bits(c) for c in alone]
    assert all(c.text for c in together)


def test_a_guard_that_fails_on_a_prompt_ends_that_request_alone(llm: LLM) -> None:
    class Broken(Guard):
        def on_prompt(self, spans: Sequence[Span]) -> Decision:
            if spans[0].text == "h":
                raise RuntimeError("no policy")
            return Decision.RELEASE

        def fork(self) -> Broken:
            return Broken(self.most)

    answers = llm.generate(PROMPTS, params(), guard=Broken(1000))
    assert [a.finish_reason is FinishReason.ERROR for a in answers] == [prompt == "h" for prompt in PROMPTS]
    assert "no policy" in str(answers[2].error)


def test_an_answer_that_cannot_be_taken_in_ends_alone(llm: LLM) -> None:
    """Whatever is broken in one answer, the others of the step get their outputs, and nothing leaks."""
    expected = llm.generate(PROMPTS[1:], params())
    broken = llm.stream(PROMPTS[0], params())
    answer = broken._answers[0]
    answer._detokenizer = BrokenDetokenizer()  # type: ignore[assignment]
    others = [llm.stream(prompt, params()) for prompt in PROMPTS[1:]]
    assert [list(stream) and bits(stream.completion) for stream in others] == [bits(c) for c in expected]
    assert list(broken) == []
    assert broken.completion.finish_reason is FinishReason.ERROR
    assert broken.completion.error == "RuntimeError: no text"


class BrokenDetokenizer:
    def add(self, token_id: int) -> str:
        raise RuntimeError("no text")
