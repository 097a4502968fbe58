"""What is said: messages in, spans between, completions out."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation. `content` is untrusted text whatever its role."""

    role: str
    content: str
    name: str | None = None
    tool_calls: tuple[dict[str, Any], ...] = ()  # as `ToolCall.document` gives them
    tool_call_id: str | None = None  # of a tool's message: the call that it answers
    reasoning_content: str | None = None  # what the assistant thought before it spoke


class Origin(StrEnum):
    """Who wrote a stretch of rendered text. Only `TEMPLATE` text may become control tokens."""

    TEMPLATE = "template"
    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a rendered conversation with its origin; `message_index` is None for the template's own text."""

    text: str
    origin: Origin
    message_index: int | None = None


class FinishReason(StrEnum):
    STOP = "stop"  # an end token, a stop token or a stop string
    LENGTH = "length"  # max_tokens, or the context is full
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"  # a text guard stopped it
    ABORTED = "aborted"  # the caller went away
    ERROR = "error"  # a hook of this request or the backend raised, or the model gave no finite logits


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """Log-probability (natural, of the raw logits) of one token, and the asked number of alternatives, best first."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Usage:
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0  # prompt tokens not computed for it: found in the prefix cache or shared with choice 0
    drafted_tokens: int = 0  # tokens that speculation guessed and a step checked
    accepted_tokens: int = 0  # of these, right and part of the answer
    reasoning_tokens: int = 0  # of the answer, up to the end of its thinking section


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A function that the model asks to be called."""

    id: str  # unique: the tool's message says which call it answers
    name: str
    arguments: str  # the text of a JSON object; cut short if the answer was

    def document(self) -> dict[str, Any]:
        """As OpenAI's API has it, and as chat templates take it."""
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": self.arguments}}


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """More of one call of an answer. The first of a call has its id and name; the arguments' pieces join to JSON."""

    index: int  # 0, 1, ... of the answer's calls
    arguments: str
    id: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """One finished choice."""

    text: str  # without reasoning and tool calls
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    usage: Usage
    seed: int
    choice: int = 0  # 0..n-1
    logprobs: tuple[TokenLogprob, ...] = ()
    stop_match: str | int | None = None  # the stop string or token that ended it
    error: str | None = None  # why, when finish_reason is ERROR, or CONTENT_FILTER by a tap
    timing: dict[str, float] = field(default_factory=dict)
    reasoning: str = ""  # what the model thought before it spoke, if it thinks aloud
    tool_calls: tuple[ToolCall, ...] = ()

    @property
    def message(self) -> Message:
        """The answer as the conversation's next message."""
        calls = tuple(call.document() for call in self.tool_calls)
        return Message("assistant", self.text, tool_calls=calls, reasoning_content=self.reasoning or None)
