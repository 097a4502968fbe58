"""What one client gets, and that it may go away meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from openherd.serve.api.events import json_bytes

_NO_SCOPE: Scope = {"type": "http"}


async def while_connected(receive: Receive, work: Coroutine[Any, Any, None]) -> bool:
    """Do the work, or stop it where it waits when the client goes away. Raises what the work raises.

    Returns whether the work was done.
    """
    working = asyncio.create_task(work)
    leaving = asyncio.create_task(_disconnected(receive))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            return False
        await working
        return True
    finally:
        for task in (working, leaving):
            task.cancel()
        for task in (working, leaving):
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await task


async def send_json(send: Send, document: object) -> None:
    """A whole answer."""
    await Response(json_bytes(document), media_type="application/json")(_NO_SCOPE, _nothing, send)


async def send_body(send: Send, body: bytes, *, more: bool = True) -> None:
    """A piece of an answer that has begun; nothing where there is nothing to say."""
    if body or not more:
        await send({"type": "http.response.body", "body": body, "more_body": more})


async def _nothing() -> dict[str, str]:
    return {"type": "http.disconnect"}


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
