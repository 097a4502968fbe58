"""Messages of a conversation, as OpenAI's chat API has them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import Field

from openherd.serve.api.json_size import JsonSize
from openherd.serve.api.requests import Refused, Strict
from openherd.serve.api.tools import MAX_TOOLS, FunctionName
from openherd.serve.front.errors import ApiError

MAX_MESSAGES = 4096
CallId = Annotated[str, Field(min_length=1, max_length=256)]


class TextPart(Strict):
    type: Literal["text"]
    text: str


class CalledFunction(Strict):
    name: FunctionName
    arguments: str


class MessageToolCall(Strict):
    id: CallId
    type: Literal["function"]
    function: CalledFunction


class ChatMessage(Strict):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Annotated[list[TextPart], Field(max_length=MAX_MESSAGES, fail_fast=True)] | None = None
    name: str | None = Field(default=None, max_length=64)
    tool_calls: Annotated[list[MessageToolCall], Field(max_length=MAX_TOOLS, fail_fast=True)] | None = None
    tool_call_id: CallId | None = None
    reasoning_content: str | None = None
    refusal: Refused = None
    audio: Refused = None
    function_call: Refused = None
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None

    @property
    def text(self) -> str:
        """The content as one text; a message of calls may have none."""
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""

    def plain(self) -> dict[str, Any]:
        """As the worker takes it; a developer's message is a system message by another name."""
        message: dict[str, Any] = {
            "role": "system" if self.role == "developer" else self.role,
            "content": self.text,
            "name": self.name,
            "tool_calls": [call.model_dump() for call in self.tool_calls or ()],
            "tool_call_id": self.tool_call_id,
            "reasoning_content": self.reasoning_content,
        }
        return {key: value for key, value in message.items() if value or key == "content"}


def plain_messages(messages: Iterable[ChatMessage]) -> list[dict[str, Any]]:
    """The conversation as the worker takes it. Raises `ApiError` that names the part of a message that is wrong."""
    made: set[str] = set()  # ids of the calls so far
    size = JsonSize()
    plain = []
    for place, message in enumerate(messages):
        path = f"messages[{place}]"
        _check_content(message, path)
        _check_answer(message, path, made)
        for number, call in enumerate(message.tool_calls or ()):
            check_arguments(call.function.arguments, f"{path}.tool_calls[{number}].function.arguments", size)
            made.add(call.id)
        plain.append(message.plain())
    return plain


def _check_content(message: ChatMessage, path: str) -> None:
    is_assistant = message.role == "assistant"
    if message.tool_calls and not is_assistant:
        raise wrong(f"{path}.tool_calls", "only an assistant's message makes calls")
    if message.reasoning_content and not is_assistant:
        raise wrong(f"{path}.reasoning_content", "only an assistant's message has reasoning")
    if message.content is None and not (is_assistant and (message.tool_calls or message.reasoning_content)):
        param = f"{path}.content"
        raise ApiError(400, f"missing parameter: {param}", param=param, code="missing_parameter")


def _check_answer(message: ChatMessage, path: str, made: set[str]) -> None:
    """A tool's message answers a call made before it."""
    param = f"{path}.tool_call_id"
    if message.role != "tool":
        if message.tool_call_id is not None:
            raise wrong(param, "only a tool's message answers a call")
    elif message.tool_call_id is None:
        raise ApiError(400, f"missing parameter: {param}", param=param, code="missing_parameter")
    elif message.tool_call_id not in made:
        raise wrong(param, "no assistant's message before it makes a call of this id")


def check_arguments(arguments: str, param: str, size: JsonSize) -> None:
    """`size`: of all arguments of the request together. Raises `ApiError` where they are too much or no object."""
    size.take(arguments.encode())
    try:
        value = json.loads(arguments or "{}", parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise wrong(param, "the arguments are not JSON") from None
    if not isinstance(value, dict):
        raise wrong(param, "the arguments are not a JSON object")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def wrong(param: str, why: str) -> ApiError:
    return ApiError(400, f"{param}: {why}", param=param, code="invalid_value")
