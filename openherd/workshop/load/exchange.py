"""One request on a connection of its own: HTTP out of bytes, events out of a body, a moment for each piece of text.

Whatever a server does ends in a record: it may refuse, cut the connection, write garbage, never answer or never stop.
Sizes are bounded before they are believed.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from abc import ABC, abstractmethod
from array import array
from dataclasses import dataclass, field
from typing import Any

import httptools

from openherd.workshop.load.events import EventError, EventParser
from openherd.workshop.load.target import Target

MAX_HEAD_BYTES = 64 * 1024
MAX_BODY_BYTES = 256 * 2**20
MAX_ERROR_BYTES = 64 * 1024  # of a body that is kept to be shown
MAX_RETRY_AFTER_S = 60.0

# Kinds of failure beside "http STATUS", in the words of the report.
REFUSED, TIMEOUT, CUT, GARBAGE, EVENT = "no connection", "timeout", "cut off", "garbage", "error event"
_TEXT_FIELDS = ("content", "reasoning_content", "reasoning", "refusal")


@dataclass(slots=True)
class Record:
    """What became of one request. Moments are seconds of the loop's clock."""

    due: float
    sent: float | None = None
    pieces: array[float] = field(default_factory=lambda: array("d"))  # a moment for each event with text
    ended: float = 0.0
    failure: str | None = None
    said: str = ""  # by the server, of a failure
    retry_after: float | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None  # None: the server reports no usage
    has_finished: bool = False  # a finish reason came


class _ExchangeError(Exception):
    """How a request failed, and what the server said."""

    def __init__(self, kind: str, said: str = "") -> None:
        self.kind = kind
        self.said = said


async def stream(target: Target, body: dict[str, Any], record: Record, *, timeout: float) -> None:
    """A streamed chat completion into `record`. Never raises for anything the server does."""
    answer = _Streamed(record)
    try:
        await _exchange(target, target.post("/chat/completions", body), answer, record, timeout)
        if not record.has_finished and not answer.is_done:
            raise _ExchangeError(CUT, "the stream ended before the answer did")
    except _ExchangeError as failed:
        record.failure, record.said = failed.kind, failed.said
    record.ended = asyncio.get_running_loop().time()


async def fetch(target: Target, path: str, *, timeout: float) -> tuple[Any, Record]:
    """The JSON document at `path`; None, and why in the record, if there is none."""
    record = Record(asyncio.get_running_loop().time())
    answer = _Whole(record)
    try:
        await _exchange(target, target.get(path), answer, record, timeout)
        return json.loads(answer.content), record
    except _ExchangeError as failed:
        record.failure, record.said = failed.kind, failed.said
    except (ValueError, RecursionError):
        record.failure, record.said = GARBAGE, "not JSON"
    return None, record


async def _exchange(target: Target, request: bytes, answer: _Body, record: Record, timeout: float) -> None:
    loop = asyncio.get_running_loop()
    transport = None
    try:
        async with asyncio.timeout(timeout):
            connection = _Connection(answer)
            transport, _ = await loop.create_connection(lambda: connection, target.host, target.port, ssl=target.tls)
            record.sent = loop.time()
            transport.write(request)
            await connection.over
    except TimeoutError:
        raise _ExchangeError(TIMEOUT, f"no end after {timeout:g} s") from None
    except ssl.SSLError as error:
        raise _ExchangeError(REFUSED, str(error.reason or error)) from None
    except OSError as error:
        raise _ExchangeError(REFUSED if record.sent is None else CUT, error.strerror or str(error)) from None
    finally:
        if transport is not None:
            transport.abort()
    answer.finish(connection.status)


class _Body(ABC):
    """Takes the body of an answer: that of an error is kept as far as it can be shown."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self._error = b""

    def take(self, status: int, piece: bytes) -> None:
        if status == 200:
            self.take_good(piece)
        else:
            self._error += piece[: MAX_ERROR_BYTES - len(self._error)]

    @abstractmethod
    def take_good(self, piece: bytes) -> None:
        """A piece of an answer with status 200."""

    def finish(self, status: int) -> None:
        """The answer is over."""
        if status != 200:
            raise _ExchangeError(f"http {status}", _message(self._error))


class _Whole(_Body):
    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self.content = b""

    def take_good(self, piece: bytes) -> None:
        self.content += piece
        if len(self.content) > MAX_ERROR_BYTES * 16:
            raise _ExchangeError(GARBAGE, "a document of more than a megabyte")


class _Streamed(_Body):
    """The events of a chat completion."""

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self.is_done = False
        self._events = EventParser()
        self._now = asyncio.get_running_loop().time

    def take_good(self, piece: bytes) -> None:
        try:
            for data in self._events.feed(piece):
                if data == b"[DONE]":
                    self.is_done = True
                elif not self.is_done:
                    self._take(json.loads(data))
        except (EventError, ValueError, RecursionError) as error:
            said = str(error) if isinstance(error, EventError) else "an event is not JSON"
            raise _ExchangeError(GARBAGE, said) from None
        except (TypeError, KeyError, AttributeError, LookupError):
            raise _ExchangeError(GARBAGE, "an event is no chunk of a chat completion") from None

    def _take(self, chunk: dict[str, Any]) -> None:
        if error := chunk.get("error"):
            raise _ExchangeError(EVENT, _shown(error.get("message", "") if isinstance(error, dict) else error))
        if (usage := chunk.get("usage")) is not None:
            self._count(usage)
        for choice in chunk.get("choices") or ():
            delta = choice.get("delta") or {}
            if any(delta.get(name) for name in _TEXT_FIELDS) or delta.get("tool_calls"):
                self.record.pieces.append(self._now())
            if choice.get("finish_reason") is not None:
                self.record.has_finished = True

    def _count(self, usage: dict[str, Any]) -> None:
        prompt, completion = usage["prompt_tokens"], usage["completion_tokens"]
        for number in (prompt, completion):
            if type(number) is not int or not 0 <= number < 2**40:
                raise _ExchangeError(GARBAGE, "usage has no numbers of tokens")
        self.record.prompt_tokens, self.record.completion_tokens = prompt, completion


class _Connection(asyncio.Protocol):
    """Bytes to the parser as they come. `over` has the exception that ended it, if one did."""

    def __init__(self, answer: _Body) -> None:
        self._answer = answer
        self._parser = httptools.HttpResponseParser(self)
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.status = 0
        self._num_bytes = 0
        self._in_head = True
        self._has_length = False
        self._failure: _ExchangeError | None = None

    # What asyncio calls.

    def data_received(self, data: bytes) -> None:
        if self.over.done():
            return
        self._num_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            # What a callback below raised comes wrapped in the parser's own error.
            self._end(self._failure or _ExchangeError(GARBAGE, "not HTTP"))
        if self._num_bytes > (MAX_HEAD_BYTES if self._in_head else MAX_BODY_BYTES):
            self._end(_ExchangeError(GARBAGE, "headers without end" if self._in_head else "a body without end"))

    def connection_lost(self, exc: Exception | None) -> None:
        """The end of a body that has no length of its own; of any other it comes too early."""
        if exc is not None:
            self._end(_ExchangeError(CUT, getattr(exc, "strerror", None) or str(exc)))
        elif self._in_head:
            self._end(_ExchangeError(CUT, "the connection ended before an answer"))
        else:
            self._end(_ExchangeError(CUT, "the connection ended inside the answer") if self._has_length else None)

    # What the parser calls.

    def on_header(self, name: bytes, value: bytes) -> None:
        match name.lower():
            case b"content-length" | b"transfer-encoding":
                self._has_length = True
            case b"content-encoding" if value.lower() != b"identity":
                self._fail(_ExchangeError(GARBAGE, "an encoding that was not asked for"))
            case b"retry-after":
                self._answer.record.retry_after = _seconds(value)

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        self._in_head = self.status < 200  # an interim answer comes before the real one

    def on_body(self, body: bytes) -> None:
        try:
            self._answer.take(self.status, body)
        except _ExchangeError as failed:
            self._fail(failed)

    def on_message_complete(self) -> None:
        if not self._in_head:
            self._end(None)

    def _fail(self, failure: _ExchangeError) -> None:
        self._failure = failure
        raise failure

    def _end(self, failure: _ExchangeError | None) -> None:
        if self.over.done():
            return
        if failure is None:
            self.over.set_result(None)
        else:
            self.over.set_exception(failure)


def _seconds(value: bytes) -> float | None:
    """Of a Retry-After header; a date, which a clock would be needed for, counts as none."""
    return min(float(value), MAX_RETRY_AFTER_S) if value.isdigit() and len(value) < 10 else None


def _message(body: bytes) -> str:
    """What an error's body says: its message if it has OpenAI's shape, or its beginning."""
    try:
        return _shown(json.loads(body)["error"]["message"])
    except (ValueError, LookupError, TypeError, RecursionError):
        return _shown(body.decode("utf-8", "replace"))


def _shown(text: Any) -> str:
    """A line that cannot steer a terminal."""
    line = " ".join(str(text).split())
    return "".join(c if c.isprintable() else "?" for c in line[:300])
