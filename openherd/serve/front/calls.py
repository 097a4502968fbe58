"""Requests to one worker as the front sees them: who waits for which events, and what each has used so far.

A request ends well when all that was asked has come. Any other end, whatever the reason (its client left, it ended
with an error, its worker died or was unloaded), is told once to `Call.on_unfinished`, so that what had been computed
for it is known and charged.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from typing import Any

from openherd.errors import EngineError
from openherd.serve.wire import Event, Frame


class Call:
    """One request to the worker, and the events that come back."""

    def __init__(self, calls: Calls, request_id: int) -> None:
        self.id = request_id
        self._calls = calls
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self.prompt_tokens = 0  # of the whole request, from when it is accepted
        self.used_prompt_tokens = 0  # of these, computed or found in the cache
        self.used_completion_tokens = 0
        self.has_failed = False  # it ended with an error that was not its client's leaving
        self.on_unfinished: Callable[[Call], None] = lambda call: None

    def put(self, event: Event) -> None:
        self._events.put_nowait(event)

    async def next(self) -> Event:
        return await self._events.get()

    def next_nowait(self) -> Event | None:
        """Another event that is already here."""
        return None if self._events.empty() else self._events.get_nowait()

    def finish(self) -> bool:
        """All that was asked has come. False where it had been told as unfinished before, since the worker died."""
        return self._calls.finish(self)

    def cancel(self) -> None:
        """Nobody waits for it any more. Does nothing to a request that has ended."""
        self._calls.cancel(self)

    def used(self, prompt_tokens: int, completion_tokens: int) -> None:
        """So much has been computed for it."""
        self.used_prompt_tokens = max(self.used_prompt_tokens, prompt_tokens)
        self.used_completion_tokens = max(self.used_completion_tokens, completion_tokens)

    def failed(self, message: str) -> None:
        """It ends with an error of the server's."""
        self.has_failed = True
        self.put({"id": self.id, "type": "error", "status": 503, "message": message, "param": None, "code": None})


class Calls:
    """All requests to one worker. `send` takes frames for it."""

    def __init__(self, send: Callable[[Frame], None]) -> None:
        self._send = send
        self._ids = itertools.count(1)
        self._open: dict[int, Call] = {}
        self._cancelled: dict[int, Call] = {}  # until the worker says what they had used
        self.last_used = time.monotonic()

    def __len__(self) -> int:
        return len(self._open) + len(self._cancelled)

    def begin(self, frame: Frame) -> Call:
        self.last_used = time.monotonic()
        call = Call(self, next(self._ids))
        self._open[call.id] = call
        self._send({**frame, "id": call.id})
        return call

    def finish(self, call: Call) -> bool:
        self.last_used = time.monotonic()
        return self._open.pop(call.id, None) is not None

    def cancel(self, call: Call) -> None:
        if self._open.pop(call.id, None) is not None:
            self._cancelled[call.id] = call
            self._send({"op": "cancel", "id": call.id})

    def cancel_all(self, message: str) -> None:
        """End all with an error, while there is a worker that stops computing them."""
        for call in tuple(self._open.values()):
            self.cancel(call)
            call.failed(message)

    def lose_all(self, message: str) -> None:
        """There is no worker any more: end all with an error. What they had used is what was last heard of it."""
        lost = (*self._open.values(), *self._cancelled.values())
        waiting = tuple(self._open.values())
        self._open.clear()
        self._cancelled.clear()
        for call in waiting:
            call.failed(message)
        for call in lost:
            call.on_unfinished(call)

    def take(self, frame: Frame) -> None:
        """Hand out what a frame of the worker's says. Raises `EngineError` for a frame that says it in no known way."""
        used, events = frame.get("used", []), frame.get("events", [])
        _check(isinstance(used, list) and all(_is_use(entry) for entry in used))
        _check(isinstance(events, list) and all(_is_event(event) for event in events))
        for request_id, prompt_tokens, completion_tokens in used:
            if (call := self._open.get(request_id) or self._cancelled.get(request_id)) is not None:
                call.used(prompt_tokens, completion_tokens)
        for event in events:
            self._hand_out(event)

    def _hand_out(self, event: Event) -> None:
        """To the call that waits for it. Of a call that was cancelled only its end counts."""
        kind = event["type"]
        if (call := self._open.get(event["id"])) is not None:
            if kind == "accepted":
                call.prompt_tokens = event["prompt_tokens"]
            if kind in ("error", "value"):
                del self._open[call.id]
            if kind == "error":
                call.has_failed = True
                call.on_unfinished(call)
            call.put(event)
        elif kind in ("cancelled", "error", "value") and event["id"] in self._cancelled:
            cancelled = self._cancelled.pop(event["id"])
            if kind == "cancelled":
                cancelled.used(event["prompt_tokens"], event["completion_tokens"])
            cancelled.on_unfinished(cancelled)


# What an event of each type must hold; `wire` says what it means.
_TEXT_OR_NONE = (str, type(None))
_FIELDS: dict[str, dict[str, type | tuple[type, ...]]] = {
    "accepted": {"prompt_tokens": int, "seed": int},
    "delta": {"choice": int, "text": str, "tokens": (list, type(None))},
    "end": {
        "choice": int,
        "finish_reason": str,
        "stop": _TEXT_OR_NONE,
        "completion_tokens": int,
        "cached_tokens": int,
        "reasoning_tokens": int,
    },
    "embedding": {"index": int, "vector": str},
    "value": {"value": object},
    "error": {"status": int, "message": str, "param": _TEXT_OR_NONE, "code": _TEXT_OR_NONE},
    "cancelled": {"prompt_tokens": int, "completion_tokens": int},
}


def _is_event(event: Any) -> bool:
    if not isinstance(event, dict) or not isinstance(event.get("id"), int):
        return False
    kind = event.get("type")
    fields = _FIELDS.get(kind) if isinstance(kind, str) else None
    return fields is not None and all(name in event and isinstance(event[name], fields[name]) for name in fields)


def _is_use(entry: Any) -> bool:
    return isinstance(entry, list) and len(entry) == 3 and all(isinstance(number, int) for number in entry)


def _check(holds: bool) -> None:
    if not holds:
        raise EngineError("a worker said what no worker of ours says")
