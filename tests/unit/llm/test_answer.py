"""From tokens to text: characters split across tokens, stop strings, guards, and tokens that follow their text."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from openherd.engine.sequence import StepOutput
from openherd.llm.answer import Answer
from openherd.llm.guards import Decision, TextGuard
from openherd.llm.stop_strings import StopStrings
from openherd.messages import FinishReason, Span, TokenLogprob
from openherd.parsers import HERMES, ModelFormat, OutputParser
from openherd.tokenizers import Tokenizer
from tests.unit.tokenizers.small_vocabularies import bpe_spec

TOKENIZER = Tokenizer(bpe_spec())
ALPHABET = "ab .\u00e9\u00df\u0416\u4e2d\u0e01\U0001f600\U0001f9d1\u200d\U0001f680"


@dataclass
class Script:
    """An engine that says these tokens, one or a few a step, and then ends."""

    answer: Answer
    given: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    kept: FinishReason | None = None

    def play(
        self, ids: Sequence[int], *, last: FinishReason = FinishReason.LENGTH, widths: Sequence[int] = (1,)
    ) -> str:
        """Text of all deltas. `kept`: why the answer asked to be ended early, if it did."""
        position = step = 0
        while position < len(ids) and self.kept is None:
            chunk = tuple(ids[position : position + widths[step % len(widths)]])
            position, step = position + len(chunk), step + 1
            end = last if position >= len(ids) else None
            logprobs = tuple(TokenLogprob(token, -float(token)) for token in chunk)
            self.kept = self.answer.receive(StepOutput(0, chunk, logprobs, finish_reason=end))
            self._take()
        return "".join(self.texts)

    def _take(self) -> None:
        while (delta := self.answer.take()) is not None:
            assert [p.token_id for p in delta.logprobs] == list(delta.token_ids)
            self.given += delta.token_ids
            self.texts.append(delta.text)


def script(*stops: str, guard: TextGuard | None = None, parser: OutputParser | None = None) -> Script:
    return Script(
        Answer(
            choice=0,
            seed=5,
            num_prompt_tokens=3,
            detokenizer=TOKENIZER.detokenizer(continues=True),
            stops=StopStrings(stops),
            guard=guard,
            parser=parser,
        )
    )


def byte_ids(text: str) -> list[int]:
    """One token for each byte, so that every character beyond ASCII is split."""
    by_byte = {TOKENIZER.token_bytes(i): i for i in range(3, 259)}
    return [by_byte[bytes([b])] for b in text.encode()]


def test_a_thousand_texts_split_within_characters() -> None:
    rng = random.Random(2)
    num_split = 0
    for _ in range(1000):
        text = "".join(rng.choices(ALPHABET, k=rng.randrange(1, 20)))
        ids = byte_ids(text)
        played = script()
        out = played.play(ids, widths=[rng.randrange(1, 5) for _ in range(4)])
        assert out == text == played.answer.completion().text
        assert "\ufffd" not in out
        assert played.given == ids
        assert b"".join(map(TOKENIZER.token_bytes, played.given)) == text.encode()
        num_split += len(ids) > len(text)
    assert num_split > 900


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_half_a_character_at_the_end_is_left_out(cut: int) -> None:
    played = script()
    ids = byte_ids("ab\U0001f600")[: 2 + cut]
    assert played.play(ids) == "ab"
    completion = played.answer.completion()
    assert completion.text == "ab"
    assert completion.token_ids == tuple(ids)  # drawn and counted all the same


def test_stop_strings_over_random_tokens() -> None:
    """Streamed, unstreamed and the definition agree, for stop strings that lie across tokens of any size."""
    rng = random.Random(3)
    num_stopped = 0
    for _ in range(1000):
        text = "".join(rng.choices(ALPHABET[:6], k=rng.randrange(4, 30)))
        start = rng.randrange(len(text))
        stops = [text[start : start + rng.randrange(1, 5)], "".join(rng.choices(ALPHABET[:6], k=3))]
        expected = text[: min((text.find(s) for s in stops if s in text), default=len(text))]
        played = script(*stops)
        streamed = played.play(byte_ids(text), widths=[rng.randrange(1, 5) for _ in range(4)])
        completion = played.answer.completion()
        assert streamed == completion.text == expected
        assert completion.finish_reason is FinishReason.STOP
        assert completion.stop_match in stops
        assert list(completion.token_ids) == played.given
        num_stopped += played.kept is FinishReason.STOP
    assert num_stopped > 800


def test_tokens_after_the_stop_in_one_step_are_dropped() -> None:
    played = script(".")
    played.play(byte_ids("ab.cd"), widths=[5])
    completion = played.answer.completion()
    assert completion.token_ids == tuple(byte_ids("ab."))
    assert played.answer.num_tokens == completion.usage.completion_tokens == 3


def test_token_waits_for_its_text() -> None:
    played = script("abc")
    answer = played.answer
    first, second, third = byte_ids("abd")
    for token in (first, second):
        answer.receive(StepOutput(0, (token,)))
        assert answer.take() is None
    answer.receive(StepOutput(0, (third,)))
    delta = answer.take()
    assert delta is not None
    assert (delta.text, delta.token_ids) == ("abd", (first, second, third))


def test_end_token_is_counted_and_not_shown() -> None:
    played = script()
    played.answer.receive(
        StepOutput(0, (*byte_ids("hi"), TOKENIZER.eos_id or 0), finish_reason=FinishReason.STOP, stop_match=1)
    )
    completion = played.answer.completion()
    assert (completion.text, completion.stop_match) == ("hi", TOKENIZER.eos_id)
    assert completion.usage.completion_tokens == len(completion.token_ids) == 3


class WordGuard:
    """Holds text to the end of a word, and stops at the word "bad"."""

    def __init__(self, holds_at_end: bool = False) -> None:
        self.seen: list[str] = []
        self.holds_at_end = holds_at_end

    def on_prompt(self, spans: Sequence[Span]) -> Decision:
        return Decision.RELEASE

    def on_text(self, held: str, final: bool) -> Decision:
        self.seen.append(held)
        if "bad" in held:
            return Decision.STOP
        if final:
            return Decision.HOLD if self.holds_at_end else Decision.RELEASE
        return Decision.RELEASE if held.endswith(" ") else Decision.HOLD

    def fork(self) -> WordGuard:
        return WordGuard(self.holds_at_end)


def test_guard_holds_until_it_decides() -> None:
    guard = WordGuard()
    played = script(guard=guard)
    assert played.play(byte_ids("one two")) == "one two"
    assert played.texts == ["one ", "two"]
    assert "on" in guard.seen
    assert played.answer.finish_reason is FinishReason.LENGTH


def test_guard_stops_and_nothing_of_it_is_given_out() -> None:
    played = script(guard=WordGuard())
    assert played.play(byte_ids("one bad two ")) == "one "
    completion = played.answer.completion()
    assert played.kept is completion.finish_reason is FinishReason.CONTENT_FILTER
    assert completion.text == "one "
    assert played.given == list(completion.token_ids) == byte_ids("one ")
    assert completion.usage.completion_tokens == len("one bad")


def test_guard_that_holds_at_the_end_stops() -> None:
    played = script(guard=WordGuard(holds_at_end=True))
    assert played.play(byte_ids("one two")) == "one "
    assert played.answer.finish_reason is FinishReason.CONTENT_FILTER


def test_guard_sees_no_text_after_a_stop_string() -> None:
    guard = WordGuard()
    played = script("!", guard=guard)
    played.play(byte_ids("good! bad"))
    assert played.answer.completion().text == "good"
    assert played.answer.finish_reason is FinishReason.STOP
    assert not any("bad" in seen for seen in guard.seen)


def test_guard_that_fails_ends_its_answer_with_an_error() -> None:
    class Broken(WordGuard):
        def on_text(self, held: str, final: bool) -> Decision:
            raise RuntimeError("no model")

    played = script(guard=Broken())
    assert played.play(byte_ids("one ")) == ""
    completion = played.answer.completion()
    assert completion.finish_reason is FinishReason.ERROR
    assert "no model" in (completion.error or "")
    assert completion.token_ids == ()


@pytest.mark.parametrize("stops", [(), ("a stop string that holds back text",)])
@pytest.mark.parametrize(
    ("written", "num_reasoning"),
    [
        ("<think>I see.</think>Yes.", 21),
        ("I see no section.", 0),
        ("<think>and never ends", 21),
        ("<think></think>", 15),
    ],
)
def test_tokens_of_the_thinking_section_are_counted(written: str, num_reasoning: int, stops: tuple[str, ...]) -> None:
    """With its marks, one token a byte here; however many come in a step, and whatever is held back."""
    for widths in ((1,), (3,), (100,)):
        thinker = OutputParser(ModelFormat(HERMES, is_native=False, thinks=True))
        played = script(*stops, parser=thinker)
        played.play(byte_ids(written), widths=widths)
        usage = played.answer.completion().usage
        assert (usage.completion_tokens, usage.reasoning_tokens) == (len(written), num_reasoning)
