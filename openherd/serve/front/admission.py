"""Who is let in, decided before a body is parsed: the bounded queue, and the limits of bodies.

A body is first read, within limits of its own, without holding a place: clients that send half a body and wait take
nothing from the others. Then the request gets a place or is answered 429 at once; the engine itself decides who runs.
"""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from openherd.serve.front.bodies import announced_length, headers_of_refusal
from openherd.serve.front.errors import ApiError, unavailable
from openherd.serve.front.places import Place, Places
from openherd.serve.lifecycle import Lifecycle

BODY_SECONDS = 20.0
# Of all bodies at once, or as much as a single one may have: hostile clients cannot take more memory than this.
MAX_BODIES_BYTES = 48 * 2**20


class Admission:
    """ASGI middleware. What is not a POST (probes, lists, metrics) passes: it costs next to nothing."""

    def __init__(self, app: ASGIApp, *, lifecycle: Lifecycle, places: Places, max_body: int) -> None:
        self._app = app
        self._lifecycle = lifecycle
        self._places = places
        self._max_body = max_body
        self._max_bodies = max(MAX_BODIES_BYTES, max_body)
        self._body_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        body = bytearray()
        try:
            await self._admit(scope, receive, body)
            with self._lifecycle.request(), Place(self._places) as place:
                scope["state"]["place"] = place
                await self._app(scope, _replay(bytes(body), receive), send)
        except ApiError as error:
            error.headers |= headers_of_refusal(scope)
            await error.response(scope["path"])(scope, receive, send)
        except ClientDisconnect:
            pass
        finally:
            self._body_bytes -= len(body)

    async def _admit(self, scope: Scope, receive: Receive, body: bytearray) -> None:
        """Read the body. Raises `ApiError` for a request that gets no place: before its body where that is known."""
        self._check_open()
        self._check_announced(scope)
        self._places.all.check()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(BODY_SECONDS) as limit:
                # Nobody waits for the rest of a body that would be refused.
                with self._lifecycle.at_drain(lambda: limit.reschedule(loop.time())):
                    await self._read(receive, body)
        except TimeoutError:
            self._check_open(headers={"Connection": "close"})
            late = f"the body did not arrive in {BODY_SECONDS:g} s"
            raise ApiError(408, late, headers={"Connection": "close"}) from None
        self._check_open()
        self._places.all.check()

    def _check_open(self, headers: dict[str, str] | None = None) -> None:
        if self._lifecycle.is_draining:
            raise ApiError(
                503,
                "the server is shutting down",
                code="shutting_down",
                headers={"Retry-After": "5", **(headers or {})},
            )

    def _check_announced(self, scope: Scope) -> None:
        """A chunked body announces nothing; it is counted as it comes."""
        if (announced_length(scope) or 0) > self._max_body:
            raise self._too_large()

    async def _read(self, receive: Receive, body: bytearray) -> None:
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            piece = message.get("body", b"")
            if len(body) + len(piece) > self._max_body:
                raise self._too_large()
            if self._body_bytes + len(piece) > self._max_bodies:
                raise unavailable("too many large requests at once")
            body += piece
            self._body_bytes += len(piece)
            if not message.get("more_body", False):
                return

    def _too_large(self) -> ApiError:
        return ApiError(
            413,
            f"the body is longer than {self._max_body} bytes; herd serve --max-body raises the limit",
            code="request_too_large",
        )


def _replay(body: bytes, receive: Receive) -> Receive:
    """The body that was read, then what the connection says: that the client went away."""
    unread: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return unread.pop() if unread else await receive()

    return replayed
