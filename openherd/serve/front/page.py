"""The web chat: a page and its modules, served from memory, under a policy that leaves a browser nothing to misuse.

What a model writes is shown, so it is hostile input. The renderer makes it harmless (`page/markdown.js`); the
headers here are the wall behind that: scripts and styles come from this server alone and never from markup, strings
become markup only through the sanitizer (Trusted Types), and the page can connect to this server and to nothing else.

Everything but the page itself has an address with a hash of all files in it, and may be kept for ever.

W3C Content Security Policy Level 3; Trusted Types; Fetch Metadata.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path

from fastapi import Request
from starlette.responses import Response
from starlette.types import Scope

from openherd.options import SamplingParams
from openherd.serve.front.errors import ApiError

FOLDER = Path(__file__).parents[1] / "page"
_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".svg": "image/svg+xml",
}
_INDEX = "index.html"
_POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self'",  # the icon; the sanitizer takes no image
    "connect-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
    "require-trusted-types-for": "'script'",
    "trusted-types": "dompurify",
}
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_STYLE = (
    "body{font:1.05rem/1.6 system-ui,sans-serif;max-width:34rem;margin:20vh auto;padding:0 1.5rem}"
    ":root{color-scheme:light dark}"
)
_ASKS_FOR_KEY = (
    '<!doctype html><html lang="en"><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    f"<title>A key is needed</title><style>{_STYLE}</style>"
    "<h1>A key is needed</h1><p>This server answers those who have one of its keys. "
    '<a href="/">Try again</a>: when your browser asks, give the key as the password; the name can be anything.</p>'
)


class Page:
    """The page's files, read once."""

    def __init__(self, folder: Path = FOLDER) -> None:
        files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
        data = {name: path.read_bytes() for name, path in files.items() if path.suffix in _TYPES}
        digest = hashlib.sha256()
        for name, content in data.items():
            digest.update(f"{name} {len(content)}\n".encode() + content)
        self.version = digest.hexdigest()[:16]
        # The page says where its other files are, and what holds where a person sets nothing.
        defaults = SamplingParams()
        filled = {"base": f"/page/{self.version}", "temperature": defaults.temperature, "top_p": defaults.top_p}
        index = data.pop(_INDEX).decode()
        for name, value in filled.items():
            index = index.replace(f"{{{{{name}}}}}", str(value))
        self._index = index.encode()
        self._etag = f'"{self.version}"'
        self._files = data

    async def index(self, request: Request) -> Response:
        """The web chat."""
        headers = {"ETag": self._etag, "Cache-Control": "no-cache"}
        if self._etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers={**headers, **_secured(_POLICY)})
        return _response(self._index, _INDEX, headers)

    async def file(self, request: Request, version: str, name: str) -> Response:
        """A module or style of the web chat. Names are looked up among what was read; no path is opened."""
        content = self._files.get(name) if version == self.version else None
        if content is None:
            raise ApiError(404, "the web chat has no such file; GET / is the page")
        # Private, because a key may have been asked for.
        return _response(content, name, {"Cache-Control": "private, max-age=31536000, immutable"})


def wants_page(scope: Scope) -> bool:
    """Whether a browser is about to show what comes, not a program."""
    accepted = b",".join(value for name, value in scope["headers"] if name == b"accept")
    return scope["method"] == "GET" and scope["path"] == "/" and b"text/html" in accepted


def ask_for_key() -> Response:
    """401 as a browser understands it: it asks the person, and sends the key with all that the page asks then."""
    style = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    policy = {**_POLICY, "script-src": "'none'", "style-src": f"'sha256-{style}'"}
    challenge = 'Basic realm="openherd: the key is the password", charset="UTF-8"'
    headers = {"WWW-Authenticate": challenge, "Cache-Control": "no-store", **_secured(policy)}
    return Response(_ASKS_FOR_KEY, 401, headers, "text/html")


def _response(content: bytes, name: str, headers: Mapping[str, str]) -> Response:
    kind = _TYPES[Path(name).suffix]
    return Response(content, headers={**headers, **_secured(_POLICY)}, media_type=kind)


def _secured(policy: Mapping[str, str]) -> dict[str, str]:
    lines = "; ".join(f"{name} {value}" for name, value in policy.items())
    return {**_HEADERS, "Content-Security-Policy": lines}
