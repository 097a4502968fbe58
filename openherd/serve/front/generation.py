"""The answer to a request for text: at once, or as server-sent events while it is made.

A client that goes away ends its request in the worker within a step. What goes wrong before the first byte is an HTTP
error; after that it is an error event, with which the stream ends.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from openherd.serve.api.answers import AnswerFormat, Choice, Head, Usage
from openherd.serve.front.accounts import Account
from openherd.serve.front.calls import Call
from openherd.serve.front.clients import send_body, send_json, while_connected
from openherd.serve.front.errors import ApiError, error_of
from openherd.serve.front.metrics import Metrics
from openherd.serve.front.records import Record
from openherd.serve.front.workers import ModelWorker
from openherd.serve.wire import Event

_STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx would collect the events otherwise
]

# Of a client that reads slowly thousands of events may wait: they go out in pieces, and others have their turn between.
MAX_PIECE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Route:
    """Where a request goes: a model's worker, and one of its adapters."""

    name: str  # of the model, as the request gave it
    worker: ModelWorker
    adapter: str | None


class Generation(Response):
    """An ASGI answer that runs one request on a worker."""

    def __init__(self, route: Route, answer: AnswerFormat, metrics: Metrics, *, stream: bool) -> None:
        super().__init__()
        self._route = route
        self._answer = answer
        self._metrics = metrics.of(route.worker.spec.name)
        self._stream = stream
        self._choices = [Choice() for _ in range(answer.num_choices)]
        self._usage = Usage()
        self._seed = 0
        self._first_text: float | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._arrived: float = scope["state"]["arrived"]
        worker = self._route.worker
        record: Record = scope["state"]["record"]
        record.stream, record.prompts = self._stream, self._answer.frame["prompts"]
        self._account = Account(self._metrics, scope["state"]["tenant"])
        call = worker.call({**self._answer.frame, "adapter": self._route.adapter, "salt": self._account.salt})
        call.on_unfinished = self._account.unfinished
        fingerprint = worker.facts["numerics_id"]
        self._head = Head(scope["state"]["request_id"], int(time.time()), self._route.name, fingerprint)
        try:
            await while_connected(receive, self._write_events(call, send) if self._stream else self._write(call, send))
        finally:
            call.cancel()
            record.answered(self._usage, self._first_text, [choice.finish_reason for choice in self._choices])

    async def _write(self, call: Call, send: Send) -> None:
        """The whole answer as one document."""
        while self._is_open:
            self._take(await call.next())
        self._finished(call)
        await send_json(send, self._answer.document(self._head, self._choices, self._usage, self._seed))

    async def _write_events(self, call: Call, send: Send) -> None:
        """The answer as it comes. What is there at once goes out at once."""
        self._take(await call.next())  # accepted, or an error that still has a status
        await send({"type": "http.response.start", "status": 200, "headers": _STREAM_HEADERS})
        await send_body(send, self._answer.opening(self._head, self._usage))
        data = bytearray()
        try:
            while self._is_open:
                data.clear()
                event: Event | None = await call.next()
                while event is not None:
                    self._take(event)
                    data += self._written(event)
                    event = call.next_nowait() if len(data) < MAX_PIECE_BYTES else None
                await send_body(send, bytes(data))
                if len(data) >= MAX_PIECE_BYTES:
                    await asyncio.sleep(0)
        except ApiError as error:
            await send_body(send, bytes(data) + self._answer.failure(self._head, error), more=False)
            return
        self._finished(call)
        await send_body(send, self._answer.closing(self._head, self._usage), more=False)

    def _finished(self, call: Call) -> None:
        self._account.finished(call, self._usage)

    @property
    def _is_open(self) -> bool:
        return any(choice.finish_reason is None for choice in self._choices)

    def _take(self, event: Event) -> None:
        """Into the state of the answer. Raises `ApiError` for an error event."""
        match event["type"]:
            case "accepted":
                self._usage.prompt_tokens = event["prompt_tokens"]
                self._seed = event["seed"]
            case "delta":
                if self._first_text is None:
                    self._first_text = time.monotonic()
                    self._metrics.ttft.observe(self._first_text - self._arrived)
                if not self._stream:
                    self._choices[event["choice"]].add(event)
            case "end":
                self._choices[event["choice"]].end(event)
                self._usage.completion_tokens += event["completion_tokens"]
                self._usage.cached_tokens += event["cached_tokens"]
                self._usage.reasoning_tokens += event["reasoning_tokens"]
                if self._first_text is not None and event["completion_tokens"] > 1:
                    decoding = time.monotonic() - self._first_text
                    self._metrics.tpot.observe(decoding / (event["completion_tokens"] - 1))
            case "error":
                raise error_of(event).renamed(self._answer.names)

    def _written(self, event: Event) -> bytes:
        if event["type"] == "delta":
            return self._answer.delta(self._head, event)
        if event["type"] == "end":
            return self._answer.ending(self._head, event)
        return b""
