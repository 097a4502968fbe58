"""Cross-origin requests (WHATWG Fetch, section 3.2): pages of the origins that were named may use the server.

Without a named origin nothing is sent, and browsers keep other pages out. Credentials are never allowed: keys travel
in a header that the page sets itself. Everything else, keys and hosts, is checked as for any other request.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_METHODS = "GET, POST"
_EXPOSED = b"x-request-id, retry-after"
_MAX_AGE_S = 600
_MAX_HEADER_NAMES = 2048
_HEADER_NAMES = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+(\s*,\s*[A-Za-z0-9!#$%&'*+.^_`|~-]+)*")


class CrossOrigin:
    """ASGI middleware, outside of keys: a preflight has none."""

    def __init__(self, app: ASGIApp, origins: Collection[str]) -> None:
        self._app = app
        self._origins = frozenset(origin.encode("latin-1") for origin in origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not self._origins:
            await self._app(scope, receive, send)
            return
        asked = {name: value for name, value in scope["headers"] if name.startswith((b"origin", b"access-control-"))}
        origin = asked.get(b"origin")
        if origin is not None and origin in self._origins:
            if scope["method"] == "OPTIONS" and b"access-control-request-method" in asked:
                await _preflight(asked)(scope, receive, send)
                return
            extra = [(b"access-control-allow-origin", origin), (b"access-control-expose-headers", _EXPOSED)]
        else:
            extra = []

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *extra, (b"vary", b"Origin")]
            await send(message)

        await self._app(scope, receive, marked)


def _preflight(asked: dict[bytes, bytes]) -> Response:
    """What such a page may send. Header names are the asked ones: which there are is not this server's business."""
    headers = {
        "Access-Control-Allow-Origin": asked[b"origin"].decode("latin-1"),
        "Access-Control-Allow-Methods": _METHODS,
        "Access-Control-Max-Age": str(_MAX_AGE_S),
        "Vary": "Origin, Access-Control-Request-Headers",
    }
    names = asked.get(b"access-control-request-headers", b"").decode("latin-1")
    if len(names) <= _MAX_HEADER_NAMES and _HEADER_NAMES.fullmatch(names):
        headers["Access-Control-Allow-Headers"] = names
    if asked.get(b"access-control-request-private-network") == b"true":
        headers["Access-Control-Allow-Private-Network"] = "true"
    return Response(status_code=204, headers=headers)
