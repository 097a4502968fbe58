"""What the Responses API takes as input: messages, calls, what they gave, and reasoning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, Tag

from openherd.serve.api.conversation import MAX_MESSAGES, CallId
from openherd.serve.api.requests import Label, Refused, Strict, by_type
from openherd.serve.api.tools import FunctionName
from openherd.serve.api.turns import Turns

Status: TypeAlias = Literal["in_progress", "completed", "incomplete"]


class InputText(Strict):
    type: Literal["input_text"]
    text: str


class OutputText(Strict):
    """As answers have it, sent back."""

    type: Literal["output_text"]
    text: str
    annotations: list[dict[str, Any]] | None = Field(default=None, max_length=0)
    logprobs: list[dict[str, Any]] | None = None


class RefusalPart(Strict):
    type: Literal["refusal"]
    refusal: str

    @property
    def text(self) -> str:
        return self.refusal


ContentPart: TypeAlias = Annotated[
    Annotated[InputText, Tag("type:input_text")]
    | Annotated[OutputText, Tag("type:output_text")]
    | Annotated[RefusalPart, Tag("type:refusal")],
    by_type("input_text", "output_text", "refusal"),
]


class MessageItem(Strict):
    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: str | Annotated[list[ContentPart], Field(max_length=MAX_MESSAGES, fail_fast=True)]
    id: Label | None = None
    status: Status | None = None
    phase: Literal["commentary", "final_answer"] | None = None

    @property
    def text(self) -> str:
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class CallItem(Strict):
    type: Literal["function_call"]
    call_id: CallId
    name: FunctionName
    arguments: str
    id: Label | None = None
    status: Status | None = None
    caller: Refused = None
    namespace: Refused = None


class CallOutputItem(Strict):
    type: Literal["function_call_output"]
    call_id: CallId
    output: str | Annotated[list[InputText], Field(max_length=MAX_MESSAGES, fail_fast=True)]
    id: Label | None = None
    status: Status | None = None
    caller: Refused = None
    namespace: Refused = None

    @property
    def text(self) -> str:
        return self.output if isinstance(self.output, str) else "".join(part.text for part in self.output)


class SummaryText(Strict):
    type: Literal["summary_text"]
    text: str


class ReasoningText(Strict):
    type: Literal["reasoning_text"]
    text: str


class ReasoningItem(Strict):
    """Its content goes to the model's template, which knows what the model should see of it again; a summary was
    never the model's own text, and does not."""

    type: Literal["reasoning"]
    id: Label | None = None
    summary: Annotated[list[SummaryText], Field(max_length=MAX_MESSAGES, fail_fast=True)] | None = None
    content: Annotated[list[ReasoningText], Field(max_length=MAX_MESSAGES, fail_fast=True)] | None = None
    encrypted_content: Refused = None
    status: Status | None = None


InputItem: TypeAlias = Annotated[
    Annotated[MessageItem, Tag("type:message")]
    | Annotated[CallItem, Tag("type:function_call")]
    | Annotated[CallOutputItem, Tag("type:function_call_output")]
    | Annotated[ReasoningItem, Tag("type:reasoning")],
    by_type("message", "function_call", "function_call_output", "reasoning", default="message"),
]


def conversation(instructions: str | None, given: str | Sequence[InputItem]) -> list[dict[str, Any]]:
    """As the worker takes it. Raises `ApiError` that names the item that does not fit."""
    turns = Turns()
    if instructions is not None:
        turns.say("system", instructions)
    if isinstance(given, str):
        turns.say("user", given)
        return turns.messages
    for place, item in enumerate(given):
        match item:
            case MessageItem():
                turns.say("system" if item.role == "developer" else item.role, item.text)
            case CallItem():
                turns.call(item.call_id, item.name, item.arguments, param=f"input[{place}].arguments")
            case CallOutputItem():
                turns.answer(item.call_id, item.text, param=f"input[{place}].call_id")
            case ReasoningItem(content=content) if content:
                turns.think("".join(part.text for part in content))
    return turns.messages
