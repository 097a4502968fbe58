"""How a conversation with tools reaches the chat template.

A template that knows the model's own format takes the tools and the calls as they are. For any other the tools stand in
a system message, calls in the assistant's own words, and results in the user's: every chat template has these.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from openherd.errors import ToolError
from openherd.messages import Message
from openherd.parsers import HERMES, MISTRAL, ModelFormat, ToolFormat

_INTRODUCTION = """You can call these functions. Each line describes one as JSON, with the schema of its arguments:
<tools>
{tools}
</tools>
To call a function, answer with its name and its arguments like this, once for each call:
<tool_call>
{{"name": "NAME", "arguments": {{"ARGUMENT": "VALUE"}}}}
</tool_call>
The result then comes between <tool_response> and </tool_response>. When no function helps, answer without one."""


def for_template(
    messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] | None, form: ModelFormat
) -> tuple[list[Message], Sequence[Mapping[str, Any]] | None]:
    """Messages and tools as the template takes them. Raises `ToolError` for calls that are malformed."""
    parsed = [
        replace(message, tool_calls=tuple(_call(call, place) for call in message.tool_calls))
        for place, message in enumerate(messages)
    ]
    if form.is_native:
        return _with_ids(parsed, form.tools), tools
    plain = list(_spoken(parsed))
    return (_introduced(plain, tools) if tools else plain), None


def _call(call: Mapping[str, Any], place: int) -> dict[str, Any]:
    """The call with its arguments as an object, not as text: that is what templates write as JSON."""
    path = f"messages[{place}].tool_calls"
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise ToolError("a call has a function with a name and arguments", param=path)
    arguments = function.get("arguments", "")
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except (ValueError, RecursionError):
            raise ToolError(f"the arguments of {function['name'][:64]!r} are not JSON", param=path) from None
    if not isinstance(arguments, Mapping):
        raise ToolError(f"the arguments of {function['name'][:64]!r} are not an object", param=path)
    return {"id": call.get("id") or "", "type": "function", "function": {**function, "arguments": arguments}}


def _with_ids(messages: list[Message], form: ToolFormat) -> list[Message]:
    """Mistral's templates want ids of nine letters or digits: numbers, so that no chance reaches the prompt."""
    if form is not MISTRAL:
        return messages
    numbers: dict[str, str] = {}

    def number(call_id: str) -> str:
        return numbers.setdefault(call_id, f"{len(numbers):09d}")

    return [
        replace(
            message,
            tool_calls=tuple({**call, "id": number(call["id"])} for call in message.tool_calls),
            tool_call_id=None if message.tool_call_id is None else number(message.tool_call_id),
        )
        for message in messages
    ]


def _spoken(messages: Sequence[Message]) -> Iterator[Message]:
    """Calls and results as text. Results that follow each other are one message, for templates that want turns."""
    results: list[str] = []
    for message in messages:
        if message.role == "tool":
            opening, closing = HERMES.result_marks
            results.append(f"{opening}\n{message.content}\n{closing}")
            continue
        if results:
            yield Message("user", "\n".join(results))
            results = []
        calls = [_written(call["function"]) for call in message.tool_calls]
        content = "\n".join(filter(None, (message.content, *calls)))
        yield replace(message, content=content, tool_calls=())
    if results:
        yield Message("user", "\n".join(results))


def _written(function: Mapping[str, Any]) -> str:
    arguments = json.dumps(function["arguments"], ensure_ascii=False)
    return f'{HERMES.marker}\n{{"name": "{function["name"]}", "arguments": {arguments}}}\n{HERMES.close}'


def _introduced(messages: list[Message], tools: Sequence[Mapping[str, Any]]) -> list[Message]:
    """The tools after what the caller's own system message says."""
    listed = "\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in tools)
    introduction = _INTRODUCTION.format(tools=listed)
    if messages and messages[0].role == "system":
        first = replace(messages[0], content=f"{messages[0].content}\n\n{introduction}")
        return [first, *messages[1:]]
    return [Message("system", introduction), *messages]
