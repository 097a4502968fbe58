"""Answers of Anthropic's API: the message, and the events that it grows by.

A message is a list of blocks: thinking, text, uses of tools. In a stream a block stops before the next one starts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from openherd.serve.api.answers import Choice, Document, Head, Part, Usage
from openherd.serve.api.events import sse
from openherd.serve.api.messages import NAMES, MessagesRequest
from openherd.serve.front.errors import ANTHROPIC_PATH, ApiError
from openherd.serve.wire import Event, Frame

_STOP_REASONS: Mapping[str, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}


class MessageFormat:
    """Documents of type message, and events of types message_* and content_block_*."""

    names = NAMES

    def __init__(self, request: MessagesRequest) -> None:
        self._max_tokens = request.max_tokens
        self._shows_thinking = request.shows_thinking
        self.frame: Frame = request.generate_frame(asdict(request.params()))
        self.num_choices = 1
        self._choice = Choice()  # of a stream
        self._num_blocks = 0  # begun
        self._open = False  # the last of them

    def opening(self, head: Head, usage: Usage) -> bytes:
        message = self._message(head, [], usage)
        return _event("message_start", message=message)

    def delta(self, head: Head, event: Event) -> bytes:
        data = b""
        for growth in self._choice.add(event):
            if growth.is_new:
                data += self._stop()
            if not self._is_shown(growth.part):
                continue
            if growth.is_new:
                data += self._start(growth.part)
            if growth.piece:
                data += self._block_event("content_block_delta", delta=_delta(growth.part, growth.piece))
        return data

    def ending(self, head: Head, event: Event) -> bytes:
        self._choice.end(event)
        return self._stop()

    def closing(self, head: Head, usage: Usage) -> bytes:
        delta = self._stopped(self._choice, usage)
        return _event("message_delta", delta=delta, usage=_usage(usage)) + _event("message_stop")

    def failure(self, head: Head, error: ApiError) -> bytes:
        return sse(error.body(ANTHROPIC_PATH), "error")

    def document(self, head: Head, choices: list[Choice], usage: Usage, seed: int) -> Document:
        blocks = [_block(part) for part in choices[0].parts if self._is_shown(part)]
        return self._message(head, blocks, usage) | self._stopped(choices[0], usage) | {"seed": seed}

    def _is_shown(self, part: Part) -> bool:
        return part.kind != "reasoning" or self._shows_thinking

    def _start(self, part: Part) -> bytes:
        self._num_blocks += 1
        self._open = True
        return self._block_event("content_block_start", content_block=_block(Part(part.kind, part.id, part.name)))

    def _stop(self) -> bytes:
        if not self._open:
            return b""
        self._open = False
        return self._block_event("content_block_stop")

    def _block_event(self, kind: str, **content: Any) -> bytes:
        return _event(kind, index=self._num_blocks - 1, **content)

    def _stopped(self, choice: Choice, usage: Usage) -> Document:
        reason = _STOP_REASONS[choice.finish_reason or "stop"]
        if choice.stop is not None:
            reason = "stop_sequence"
        elif reason == "max_tokens" and usage.completion_tokens < self._max_tokens:
            reason = "model_context_window_exceeded"
        return {"stop_reason": reason, "stop_sequence": choice.stop}

    def _message(self, head: Head, content: list[Document], usage: Usage) -> Document:
        return {
            "id": f"msg_{head.id}",
            "type": "message",
            "role": "assistant",
            "model": head.model,
            "content": content,
            "stop_reason": None,
            "stop_sequence": None,
            "stop_details": None,
            "container": None,
            "usage": _usage(usage),
        }


def _event(kind: str, **content: Any) -> bytes:
    return sse({"type": kind, **content}, kind)


def _block(part: Part) -> Document:
    match part.kind:
        case "text":
            return {"type": "text", "text": part.content, "citations": None}
        case "reasoning":
            return {"type": "thinking", "thinking": part.content, "signature": ""}
    use = {"id": part.id, "name": part.name, "input": _arguments(part.content)}
    return {"type": "tool_use", **use, "caller": {"type": "direct"}}


def _delta(part: Part, piece: str) -> Document:
    match part.kind:
        case "text":
            return {"type": "text_delta", "text": piece}
        case "reasoning":
            return {"type": "thinking_delta", "thinking": piece}
    return {"type": "input_json_delta", "partial_json": piece}


def _arguments(text: str) -> dict[str, Any]:
    """Of a call; none where an answer was cut inside of them, as its stop_reason tells."""
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _usage(usage: Usage) -> Document:
    """Tokens found in the cache are not counted as input again. Null is what is not known here, or has no meaning."""
    return {
        "input_tokens": usage.prompt_tokens - usage.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": None,
        "cache_creation": None,
        "server_tool_use": None,
        "service_tier": "standard",
        "inference_geo": None,
    }
