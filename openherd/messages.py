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
    tool_calls: tuple[dict[str, Any], ...] = ()
    tool_call_id: str | None = None


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


@dataclass(frozen=True, slots=True)
class Completion:
    """One finished choice."""

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    usage: Usage
    seed: int
    choice: int = 0  # 0..n-1
    logprobs: tuple[TokenLogprob, ...] = ()
    stop_match: str | int | None = None  # the stop string or token that ended it
    error: str | None = None  # why, when finish_reason is ERROR, or CONTENT_FILTER by a tap
    timing: dict[str, float] = field(default_factory=dict)
