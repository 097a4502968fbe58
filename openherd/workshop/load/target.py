"""The server's address, and a request as the bytes that go there."""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

from openherd import __version__
from openherd.errors import InputError

KEY_VARIABLE = "OPENHERD_API_KEY"


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go. `path` ends in the API's version, as in `/v1`."""

    host: str
    port: int
    path: str
    key: str | None
    tls: ssl.SSLContext | None

    @classmethod
    def parse(cls, url: str, environment: Mapping[str, str] = os.environ) -> Self:
        """`http[s]://HOST[:PORT][/PATH]`; without a path, /v1. Raises `InputError`.

        The key comes from the environment alone: a flag would show it to everybody who lists processes.
        """
        hint = "try: --server http://127.0.0.1:8080"
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            raise InputError(f"--server {url!r} is no address", hint=hint) from None
        has_more = parts.query or parts.fragment or parts.username is not None
        if parts.scheme not in ("http", "https") or not host or has_more or not url.isascii() or " " in url:
            raise InputError(f"--server is http://HOST:PORT or https://HOST, not {url!r}", hint=hint)
        key = environment.get(KEY_VARIABLE) or None
        if key is not None and not (key.isascii() and key.isprintable()):
            raise InputError(f"{KEY_VARIABLE} has characters that no header may have")
        tls = ssl.create_default_context() if parts.scheme == "https" else None
        return cls(host, port or (443 if tls else 80), parts.path.rstrip("/") or "/v1", key, tls)

    def post(self, path: str, body: Mapping[str, Any]) -> bytes:
        content = json.dumps(body).encode()
        extra = ["Content-Type: application/json", f"Content-Length: {len(content)}"]
        return self._head("POST", path, extra) + content

    def get(self, path: str) -> bytes:
        return self._head("GET", path, [])

    def _head(self, method: str, path: str, extra: list[str]) -> bytes:
        host = f"[{self.host}]" if ":" in self.host else self.host
        lines = [
            f"{method} {self.path}{path} HTTP/1.1",
            f"Host: {host}:{self.port}",
            f"User-Agent: openherd/{__version__}",
            "Connection: close",
            *([f"Authorization: Bearer {self.key}"] if self.key else []),
            *extra,
        ]
        return "\r\n".join([*lines, "", ""]).encode()
