"""A finished or growing answer, between the worker's events and an API's documents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

from openherd.serve.front.errors import ApiError
from openherd.serve.wire import Event, Frame

Document = dict[str, Any]


@dataclass(slots=True)
class Part:
    """A stretch of one choice that is all reasoning, all text, or one call."""

    kind: Literal["reasoning", "text", "call"]
    id: str = ""  # of a call, and
    name: str = ""  # the function that it calls
    pieces: list[str] = field(default_factory=list)
    tokens: list[dict[str, Any]] = field(default_factory=list)  # of text, where log-probabilities were asked

    @property
    def content(self) -> str:
        """Text, or a call's arguments as JSON text."""
        return "".join(self.pieces)


class Growth(NamedTuple):
    """What one part gained by a delta."""

    part: Part
    is_new: bool
    piece: str
    tokens: list[dict[str, Any]]


@dataclass(slots=True)
class Choice:
    """One choice as far as it has come, its parts in order."""

    tokens: list[dict[str, Any]] = field(default_factory=list)
    finish_reason: str | None = None
    stop: str | None = None  # the stop string that ended it
    parts: list[Part] = field(default_factory=list)
    _num_calls: int = 0

    def add(self, delta: Event) -> list[Growth]:
        """Take in a delta of the worker's: reasoning, then text, then calls."""
        tokens = delta["tokens"] or []
        self.tokens += tokens
        grown = []
        if reasoning := delta.get("reasoning"):
            grown.append(self._grow("reasoning", reasoning, []))
        calls = delta.get("tool_calls", ())
        if delta["text"] or (tokens and not (reasoning or calls)):
            grown.append(self._grow("text", delta["text"], tokens))
        return [*grown, *(self._grow_call(piece) for piece in calls)]

    def end(self, event: Event) -> None:
        self.finish_reason, self.stop = event["finish_reason"], event["stop"]

    @property
    def text(self) -> str:
        return "".join(part.content for part in self.parts if part.kind == "text")

    @property
    def reasoning(self) -> str:
        """What the model thought before it spoke; empty for one that does not think aloud."""
        return "".join(part.content for part in self.parts if part.kind == "reasoning")

    @property
    def tool_calls(self) -> list[dict[str, str]]:
        """`id`, `name` and `arguments` (JSON text) of each call."""
        calls = (part for part in self.parts if part.kind == "call")
        return [{"id": call.id, "name": call.name, "arguments": call.content} for call in calls]

    def _grow(self, kind: Literal["reasoning", "text"], piece: str, tokens: list[dict[str, Any]]) -> Growth:
        is_new = not self.parts or self.parts[-1].kind != kind
        if is_new:
            self.parts.append(Part(kind))
        part = self.parts[-1]
        part.pieces.append(piece)
        part.tokens += tokens
        return Growth(part, is_new, piece, tokens)

    def _grow_call(self, piece: dict[str, Any]) -> Growth:
        is_new = piece["index"] == self._num_calls
        if is_new:
            self._num_calls += 1
            self.parts.append(Part("call", piece["id"], piece["name"]))
        part = next(part for part in reversed(self.parts) if part.kind == "call")
        part.pieces.append(piece["arguments"])
        return Growth(part, is_new, piece["arguments"], [])


@dataclass(slots=True)
class Usage:
    """Tokens of a request, all its prompts and choices together."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0  # of the completion

    def document(self) -> Document:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
            "completion_tokens_details": {"reasoning_tokens": self.reasoning_tokens},
        }


@dataclass(frozen=True, slots=True)
class Head:
    """What every document of an answer repeats."""

    id: str
    created: int
    model: str
    fingerprint: str  # the numerics id: within one, the same request has the same answer


class AnswerFormat(Protocol):
    """How one API writes one answer. Bytes are server-sent events, as many as the API has for it; none is `b""`."""

    frame: Frame  # what the worker is asked
    num_choices: int
    names: Mapping[str, str]  # what this API calls the engine's parameters, where it has other names

    def opening(self, head: Head, usage: Usage) -> bytes:
        """Before any text; the usage is that of the prompt."""

    def delta(self, head: Head, event: Event) -> bytes:
        """More of a choice: text, reasoning or tool calls, or several of them."""

    def ending(self, head: Head, event: Event) -> bytes:
        """A choice has ended."""

    def closing(self, head: Head, usage: Usage) -> bytes:
        """After all choices."""

    def failure(self, head: Head, error: ApiError) -> bytes:
        """Instead of all that would have followed."""

    def document(self, head: Head, choices: list[Choice], usage: Usage, seed: int) -> Document:
        """The whole answer at once."""
