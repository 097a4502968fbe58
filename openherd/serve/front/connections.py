"""One HTTP connection, with the limits that uvicorn's own protocol does not have.

Headers have a size and a time limit: a client that sends half a request, or a header without end, is answered and
closed without a task of ours having been started. Bodies are limited by `admission`.

A request that is sent before the answer to the one before it (pipelined) is not read: the connection closes behind that
answer, and its client asks again, as RFC 9112 (9.3.2) has it. With a second request waiting, nobody would see that the
client of the first one went away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from openherd.serve.front.errors import ApiError

MAX_HEADER_BYTES = 32 * 1024
# From the connection, or the first byte of a further request on it, to the end of the headers.
HEADER_SECONDS = 10.0


class Connection(HttpToolsProtocol):
    """HTTP/1.1 on one socket. `refused` is told the status of an answer to what is no request, and gives its id."""

    def __init__(self, *args: Any, refused: Callable[[int], str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._refused = refused
        self._in_headers = False
        self._ended_here = False  # a request, in the piece of data that is being read
        self._num_header_bytes = 0
        self._is_deaf = False  # what comes now is not read: it was sent too early
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_deaf:
            return
        self._ended_here = False
        super().data_received(data)
        if self._is_deaf:
            return
        # A piece that also holds the end of the request before is not counted: it is one piece of at most 256 KiB.
        if self._in_headers and not self._ended_here and not self.transport.is_closing():
            self._num_header_bytes += len(data)
            if self._num_header_bytes > MAX_HEADER_BYTES:
                self._refuse_headers()
        elif self.cycle is not None and self.cycle.response_complete and self._deadline is None:
            self._await_headers()  # what is left of a refused body comes: uvicorn has stopped its clock for it

    def on_message_begin(self) -> None:
        super().on_message_begin()  # what follows is not written into the headers of the request before
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False
            self._is_deaf = True
        if self._is_deaf:
            return
        self._in_headers = True
        if self._deadline is None:
            self._await_headers()

    def on_headers_complete(self) -> None:
        if self._is_deaf:
            return
        self._stop_waiting()
        self._in_headers = False
        self._num_header_bytes = 0
        if len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > MAX_HEADER_BYTES:
            self._refuse_headers()
        elif not self.transport.is_closing():
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not (self._is_deaf or self.transport.is_closing()):
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._ended_here = True
        if not (self._is_deaf or self.transport.is_closing()):
            super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP, answered in the shape of all other errors."""
        if not self.transport.is_closing():
            self._refuse(ApiError(400, "this is not a valid HTTP request"))

    def _await_headers(self) -> None:
        self._deadline = self.loop.call_later(HEADER_SECONDS, self._out_of_time)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _out_of_time(self) -> None:
        if self._in_headers:
            self._refuse(ApiError(408, f"the headers did not arrive in {HEADER_SECONDS:g} s"))
        else:
            self.transport.close()

    def _refuse_headers(self) -> None:
        self._refuse(ApiError(431, f"the headers are longer than {MAX_HEADER_BYTES} bytes"))

    def _refuse(self, error: ApiError) -> None:
        error.headers["x-request-id"] = self._refused(error.status)
        response = error.response()
        head = [STATUS_LINE[error.status]]
        head += [b"%s: %s\r\n" % header for header in response.raw_headers]
        self.transport.write(b"".join([*head, b"connection: close\r\n\r\n", bytes(response.body)]))
        self.transport.close()
