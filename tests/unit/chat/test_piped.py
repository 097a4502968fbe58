"""Conversation without a keyboard."""

from __future__ import annotations

import io
import json

import pytest

from openherd.chat.conversation import Conversation
from openherd.chat.piped import answer_lines
from openherd.errors import HerdError, InputError
from openherd.messages import FinishReason
from openherd.options import SamplingParams
from tests.unit.chat.scripted import Script, ScriptedModel, saying


def answered(model: ScriptedModel, lines: bytes, *, as_json: bool = False) -> tuple[str, str]:
    out, notes = io.StringIO(), io.StringIO()
    answer_lines(Conversation(model, SamplingParams()), io.BytesIO(lines), out, notes, as_json=as_json)
    return out.getvalue(), notes.getvalue()


def test_each_line_is_a_turn_of_one_conversation() -> None:
    model = saying("one", "two")
    out, notes = answered(model, b"first\n\n   \nsecond")
    assert out == "one \ntwo \n"
    assert [len(prompt) for prompt in model.asked] == [1, 3]
    assert notes.count("tokens/s") == 2


def test_a_person_is_told_what_is_waited_for() -> None:
    class Keyboard(io.BytesIO):
        def isatty(self) -> bool:
            return True

    out, notes = io.StringIO(), io.StringIO()
    answer_lines(Conversation(saying("one"), SamplingParams()), Keyboard(b"q\n"), out, notes)
    assert notes.getvalue().startswith("reading lines from the terminal; answers go to standard output\n")
    assert out.getvalue() == "one \n"
    assert "reading lines" not in answered(saying("one"), b"q\n")[1]


def test_a_line_that_begins_with_a_slash_is_text() -> None:
    model = saying("one")
    answered(model, b"/exit\n")
    assert model.asked[0][0].content == "/exit"


def test_json_is_one_document_a_line() -> None:
    out, _ = answered(saying("one", "zwei € 😀"), b"a\nb\n", as_json=True)
    documents = [json.loads(line) for line in out.splitlines()]
    assert [document["text"] for document in documents] == ["one ", "zwei € 😀 "]
    assert documents[0].keys() == {
        "text",
        "prompt_tokens",
        "completion_tokens",
        "finish_reason",
        "seed",
        "numerics_id",
        "context",
        "context_used",
        "speculation",
        "timing",
    }


def test_bytes_that_are_no_text_name_their_line() -> None:
    with pytest.raises(InputError, match="line 2 of standard input is not UTF-8"):
        answered(saying("one"), b"fine\n\xff\n")


def test_a_full_context_is_said_and_not_passed_over() -> None:
    model = ScriptedModel([Script(["w "] * 3, finish=FinishReason.LENGTH)], context=4)
    with pytest.raises(HerdError, match=r"context of 4 tokens is full.*--context"):
        answered(model, b"q\nmore\n")


@pytest.mark.parametrize("as_json", [False, True])
def test_an_empty_answer_is_an_answer(as_json: bool) -> None:
    out, notes = answered(ScriptedModel([Script([])]), b"q\n", as_json=as_json)
    assert (json.loads(out)["text"] if as_json else out.removesuffix("\n")) == ""
    assert "it said nothing" in notes
