"""What the template is given: natively, or as words where it knows nothing of tools."""

from __future__ import annotations

import pytest

from openherd.errors import ToolError
from openherd.llm.aloud import ThinkingAloud
from openherd.llm.answer import Delta
from openherd.llm.tool_prompts import for_template
from openherd.messages import Message, ToolCall
from openherd.parsers import HERMES, MISTRAL, ModelFormat

NOW = {"type": "function", "function": {"name": "now", "description": "{braces}"}}
CALLS = tuple(ToolCall(f"call_{name}", "now", '{"x": "\u00e9"}').document() for name in "ab")
TALK = [
    Message("user", "When?"),
    Message("assistant", "I look.", tool_calls=CALLS),
    Message("tool", "noon", tool_call_id="call_b"),
    Message("tool", "night", tool_call_id="call_a"),
    Message("assistant", "Noon."),
]


def test_a_template_without_tools_gets_words() -> None:
    messages, tools = for_template(TALK, [NOW], ModelFormat(HERMES, False, False))
    assert tools is None
    assert [message.role for message in messages] == ["system", "user", "assistant", "user", "assistant"]
    assert '{"name": "now", "description": "{braces}"}' in messages[0].content
    call = '<tool_call>\n{"name": "now", "arguments": {"x": "\u00e9"}}\n</tool_call>'
    assert messages[2].content == f"I look.\n{call}\n{call}"
    assert messages[3].content == ("<tool_response>\nnoon\n</tool_response>\n<tool_response>\nnight\n</tool_response>")
    assert not any(message.tool_calls for message in messages)


def test_the_callers_system_message_comes_first() -> None:
    messages, _ = for_template([Message("system", "Be kind."), TALK[0]], [NOW], ModelFormat(HERMES, False, False))
    assert messages[0].content.startswith("Be kind.\n\n")
    assert len(messages) == 2


def test_without_tools_nothing_is_added() -> None:
    assert for_template(TALK[:1], None, ModelFormat(HERMES, False, False)) == (TALK[:1], None)


def test_a_template_with_tools_gets_arguments_as_objects_and_mistral_ids_of_nine_digits() -> None:
    messages, tools = for_template(TALK, [NOW], ModelFormat(HERMES, True, False))
    assert tools == [NOW]
    assert messages[1].tool_calls[0]["function"]["arguments"] == {"x": "\u00e9"}
    assert messages[2].tool_call_id == "call_b"
    messages, _ = for_template(TALK, [NOW], ModelFormat(MISTRAL, True, False))
    assert [call["id"] for call in messages[1].tool_calls] == ["000000000", "000000001"]
    assert [message.tool_call_id for message in messages[2:4]] == ["000000001", "000000000"]


@pytest.mark.parametrize("arguments", ["{", "[1]", 3])
def test_malformed_calls_in_messages(arguments: object) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "now", "arguments": arguments}}
    with pytest.raises(ToolError) as found:
        for_template([Message("assistant", "", tool_calls=(call,))], None, ModelFormat(HERMES, False, False))
    assert found.value.param == "messages[0].tool_calls"


def test_thoughts_stand_between_their_tags_where_there_is_one_text() -> None:
    aloud = ThinkingAloud()
    deltas = [Delta("", reasoning="So"), Delta("", reasoning=" it is."), Delta("Noon"), Delta(".")]
    assert "".join(map(aloud.text, deltas)) == "<think>\nSo it is.\n</think>\n\nNoon."
