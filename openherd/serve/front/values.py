"""The answer to a request that is one value of the worker's: token ids, their number, text."""

from __future__ import annotations

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from openherd.serve.front.calls import Call
from openherd.serve.front.clients import send_json, while_connected
from openherd.serve.front.errors import error_of
from openherd.serve.front.generation import Route
from openherd.serve.wire import Frame


class Value(Response):
    """An ASGI answer that asks the worker one question."""

    def __init__(self, route: Route, frame: Frame) -> None:
        super().__init__()
        self._route = route
        self._frame = frame

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = self._route.worker.call(self._frame)
        try:
            await while_connected(receive, _answer(call, send))
        finally:
            call.cancel()


async def _answer(call: Call, send: Send) -> None:
    event = await call.next()
    if event["type"] == "error":
        raise error_of(event)
    await send_json(send, event["value"])
