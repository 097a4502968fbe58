"""What a conversation remembers, also of answers that were stopped, failed or made again."""

from __future__ import annotations

import threading

import pytest

from openherd.chat.conversation import Conversation
from openherd.chat.statistics import too_long_notice
from openherd.errors import ContextLengthError, EngineError, InputError
from openherd.messages import FinishReason, Message
from openherd.options import SamplingParams
from tests.unit.chat.scripted import Script, ScriptedModel, saying


def said(conversation: Conversation) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in conversation.messages]


def test_the_model_is_asked_with_everything_said_so_far() -> None:
    model = saying("one", "two")
    conversation = Conversation(model, SamplingParams(), system="be brief")
    assert "".join(conversation.ask("first")) == "one "
    assert "".join(conversation.ask("second")) == "two "
    assert model.asked[1] == [
        Message("system", "be brief"),
        Message("user", "first"),
        Message("assistant", "one "),
        Message("user", "second"),
    ]
    assert said(conversation)[-1] == ("assistant", "two ")
    assert conversation.context_used == 5 + 1


def test_closing_stops_the_answer_and_keeps_what_there_is_of_it() -> None:
    model = ScriptedModel([Script(["some ", "words "], hold=True)])
    conversation = Conversation(model, SamplingParams())
    pieces = conversation.ask("go on")
    assert next(pieces) == "some "
    pieces.close()
    assert model.streams[0].closed
    assert said(conversation)[0] == ("user", "go on")
    assert conversation.exchanges[0].answered.content.startswith("some ")
    assert conversation.last is not None
    assert conversation.last.finish_reason is FinishReason.ABORTED


def test_the_answer_is_made_in_another_thread_which_ends_with_it() -> None:
    """Ctrl-C raises in the main thread, which must not be inside the engine then."""
    model = ScriptedModel([Script(["word"], hold=True)])
    pieces = Conversation(model, SamplingParams()).ask("x")
    next(pieces)
    worker = model.streams[0].worker
    assert worker is not None
    assert worker is not threading.current_thread()
    pieces.close()
    assert not worker.is_alive()


def test_stopped_before_the_first_word_nothing_is_recorded() -> None:
    conversation = Conversation(ScriptedModel([Script([], finish=FinishReason.STOP)]), SamplingParams())
    assert list(conversation.ask("x")) == []
    assert conversation.messages == []


def test_an_error_of_the_request_is_raised_after_its_text() -> None:
    conversation = Conversation(ScriptedModel([Script(["a"], finish=FinishReason.ERROR)]), SamplingParams())
    with pytest.raises(EngineError, match="a processor raised"):
        list(conversation.ask("x"))


def test_an_exception_in_the_other_thread_reaches_the_caller() -> None:
    conversation = Conversation(ScriptedModel([Script(["a"], raises=MemoryError("no more"))]), SamplingParams())
    with pytest.raises(MemoryError, match="no more"):
        list(conversation.ask("x"))
    assert said(conversation) == [("user", "x"), ("assistant", "a")]


def test_a_message_that_does_not_fit_changes_nothing() -> None:
    model = saying("one")
    model.context = 4
    conversation = Conversation(model, SamplingParams())
    list(conversation.ask("hello"))
    with pytest.raises(ContextLengthError):
        list(conversation.ask("far too many words for this"))
    assert said(conversation) == [("user", "hello"), ("assistant", "one ")]
    assert "/undo" in too_long_notice(conversation)
    conversation.begin()
    assert "/undo" not in too_long_notice(conversation), "there is nothing to take back"


def test_regenerate_replaces_the_last_answer_with_the_same_question() -> None:
    model = saying("one", "another")
    conversation = Conversation(model, SamplingParams())
    list(conversation.ask("q"))
    list(conversation.regenerate())
    assert model.asked[0] == model.asked[1]
    assert said(conversation) == [("user", "q"), ("assistant", "another ")]


def test_a_regeneration_that_yields_nothing_keeps_the_earlier_answer() -> None:
    model = ScriptedModel([Script(["one"]), Script([])])
    conversation = Conversation(model, SamplingParams())
    list(conversation.ask("q"))
    list(conversation.regenerate())
    assert said(conversation)[-1] == ("assistant", "one")


def test_undo() -> None:
    conversation = Conversation(saying("one"), SamplingParams())
    list(conversation.ask("q"))
    assert conversation.undo().asked.content == "q"
    assert conversation.messages == []
    with pytest.raises(InputError):
        conversation.undo()
    with pytest.raises(InputError):
        next(conversation.regenerate())


def test_a_full_context_is_known() -> None:
    model = ScriptedModel([Script(["w "] * 3, finish=FinishReason.LENGTH)], context=4)
    conversation = Conversation(model, SamplingParams())
    list(conversation.ask("q"))
    assert conversation.context_is_full
    model.context = 5
    assert not conversation.context_is_full, "max_tokens ended it"
