"""What a request says about its body before it comes, and what becomes of one that is not wanted.

A server that answers and closes while the client still sends resets the connection, and the answer is lost. So what is
left of a refused body is taken in and thrown away by the connection (uvicorn's parser does it), unless it is too much
or has no known end.
"""

from __future__ import annotations

from starlette.types import Scope

MAX_DISCARDED_BYTES = 64 * 2**20


def announced_length(scope: Scope) -> int | None:
    """Content-Length; None for a chunked body, whose end nobody knows."""
    for name, value in scope["headers"]:
        if name == b"transfer-encoding":
            return None
        if name == b"content-length":
            return int(value) if len(value) < 20 else 10**20
    return 0


def headers_of_refusal(scope: Scope) -> dict[str, str]:
    """The header that closes the connection after a refusal, where the body must not come."""
    length = announced_length(scope)
    return {"Connection": "close"} if length is None or length > MAX_DISCARDED_BYTES else {}
