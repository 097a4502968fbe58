"""Rows in the forms that people publish, and what is said of those that are not."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest

from openherd.messages import Message
from openherd.train.rows import Completion, Conversation, Preference, RowError, Text, parse_row, unused_keys

ASK, SAY = Message("user", "q"), Message("assistant", "a")
GOOD: dict[str, tuple[dict[str, Any], object]] = {
    "text": ({"text": "t"}, Text("t")),
    "messages": (
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
        Conversation((ASK, SAY)),
    ),
    "sharegpt": (
        {"system": "s", "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
        Conversation((Message("system", "s"), ASK, SAY)),
    ),
    "alpaca": (
        {"instruction": "q", "input": "i", "output": "a", "history": [["x", "y"]]},
        Conversation((Message("user", "x"), Message("assistant", "y"), Message("user", "q\n\ni"), SAY)),
    ),
    "completion": ({"prompt": "p", "completion": "c"}, Completion("p", "c")),
    "completion of messages": (
        {"prompt": [{"role": "user", "content": "q"}], "completion": [{"role": "assistant", "content": "a"}]},
        Conversation((ASK, SAY)),
    ),
    "preference": (
        {"prompt": "q", "chosen": "a", "rejected": "b"},
        Preference((ASK,), (SAY,), (Message("assistant", "b"),)),
    ),
    "preference of instructions": (
        {"instruction": "q", "input": "", "output": "a", "chosen": "a", "rejected": "b"},
        Preference((ASK,), (SAY,), (Message("assistant", "b"),)),
    ),
    "preference of whole conversations": (
        {
            "chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
            "rejected": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "b"}],
        },
        Preference((ASK,), (SAY,), (Message("assistant", "b"),)),
    ),
}
BAD: dict[str, tuple[object, str]] = {
    "no object": ([1], "must be a JSON object, not a list"),
    "no known key": ({"question": "q"}, "a row needs messages, or conversations, .* it has question"),
    "empty": ({}, "it has no key"),
    "text is a number": ({"text": 3}, "text must be text, not a number"),
    "half a character": ({"text": "\ud800"}, "lone surrogate"),
    "no list of messages": ({"messages": "hello"}, "messages must be a list of messages, not text"),
    "no message": ({"messages": ["hello"]}, r"messages\[0\] must be an object"),
    "no role": ({"messages": [{"content": "x"}]}, r"messages\[0\]: role must be one of"),
    "unknown role": ({"messages": [{"role": "robot", "content": "x"}]}, "not 'robot'"),
    "no content": ({"messages": [{"role": "assistant"}]}, "content must be text, not nothing"),
    "nobody answers": ({"messages": [{"role": "user", "content": "x"}]}, "no assistant's turn"),
    "a call without a name": ({"conversations": [{"from": "function_call", "value": "{}"}]}, "name and arguments"),
    "tools are no list": ({"messages": [], "tools": "x"}, "messages must be a list"),
    "the same twice": ({"prompt": "q", "chosen": "a", "rejected": "a"}, "nothing can be preferred"),
    "the user has the last word": (
        {"prompt": "q", "chosen": [{"role": "user", "content": "a"}], "rejected": "b"},
        "chosen must end with the assistant's turn",
    ),
    "no common prompt": ({"chosen": "a", "rejected": "b"}, "share no prompt"),
    "half a pair": ({"instruction": "q", "output": "a", "history": [["x"]]}, r"history\[0\] must be a pair"),
}


@pytest.mark.parametrize("name", GOOD)
def test_forms_that_people_publish(name: str) -> None:
    value, row = GOOD[name]
    assert parse_row(value, "f:1") == row


@pytest.mark.parametrize("name", BAD)
def test_a_malformed_row_names_its_place_and_what_is_expected(name: str) -> None:
    value, message = BAD[name]
    with pytest.raises(RowError, match=message) as refused:
        parse_row(value, "data.jsonl:7")
    assert str(refused.value).startswith("data.jsonl:7: ")


def test_calls_of_functions_and_the_tools_offered() -> None:
    call = {"name": "add", "arguments": {"a": 1}}
    row = parse_row(
        {
            "tools": json.dumps([{"name": "add", "parameters": {}}]),
            "conversations": [
                {"from": "human", "value": "q"},
                {"from": "function_call", "value": json.dumps(call)},
                {"from": "observation", "value": "2"},
                {"from": "gpt", "value": "a"},
            ],
        },
        "f:1",
    )
    assert isinstance(row, Conversation)
    assert row.tools == ({"type": "function", "function": {"name": "add", "parameters": {}}},)
    assert row.messages[1].tool_calls == ({"type": "function", "function": call},)
    assert [message.role for message in row.messages] == ["user", "assistant", "tool", "assistant"]


def test_keys_that_take_no_part_are_known() -> None:
    assert unused_keys({"text": "t", "id": 1, "url": "u"}) == {"id", "url"}
    assert unused_keys({"instruction": "q", "output": "a", "system": "s"}) == frozenset()


def test_any_json_value_is_a_row_or_a_row_error() -> None:
    """Rows are hostile: 3,000 spoilt copies of good ones."""
    random = Random(20261126)
    values = [value for value, _ in GOOD.values()]
    rows = 0
    for _ in range(3000):
        try:
            parse_row(_spoilt(random.choice(values), random), "f:1")
            rows += 1
        except RowError:
            pass
    assert 100 < rows < 2900, "too tame or too wild to test anything"


def _spoilt(value: Any, random: Random) -> Any:
    if random.random() < 0.1:
        return random.choice([None, True, 0, -1.5, "", "x", "\ud800", [], {}, [[]], {"role": {}}, "{"])
    if isinstance(value, dict):
        return {key: _spoilt(item, random) for key, item in value.items() if random.random() > 0.03}
    if isinstance(value, list):
        return [_spoilt(item, random) for item in value]
    return value
