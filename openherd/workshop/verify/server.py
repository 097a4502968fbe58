"""One server's JSON over HTTP. Only the address that was named is contacted: no proxy, no redirect is followed."""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

from openherd.errors import HerdError, InputError
from openherd.store.bounded_http import Connection, SecureConnection

KEY_VARIABLE = "OPENHERD_API_KEY"
TIMEOUT_S = 60.0  # of a connection, and of each packet
TOTAL_S = 180.0  # of a request with its answer, however slowly packets drip
MAX_ANSWER = 16 << 20


class UnreachableError(HerdError):
    """Nothing usable answers at that address."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A status, and the body where it is JSON."""

    status: int
    body: Any

    @property
    def is_good(self) -> bool:
        return self.status == 200

    @property
    def is_refusal(self) -> bool:
        """The server has understood the request and says no to what it asks: 400, or 422 of servers on FastAPI.

        Not what is said for now or of the server itself (429, 503, 500), nor of a path or key (404, 401).
        """
        return self.status in (400, 422)

    @property
    def is_template_error(self) -> bool:
        """What llama.cpp answers where a template raises: a 500 with an error of the type "server_error"."""
        error = self.field("error")
        return self.status == 500 and isinstance(error, dict) and error.get("type") == "server_error"

    def field(self, name: str) -> Any:
        """A field of the body; None when there is none."""
        return self.body.get(name) if isinstance(self.body, dict) else None


@dataclass(frozen=True, slots=True)
class Server:
    """`root` is the path before `/v1`. The key comes from the environment: a flag would show it to other processes."""

    host: str
    port: int
    root: str
    tls: ssl.SSLContext | None
    key: str | None

    @classmethod
    def parse(cls, url: str, environment: Mapping[str, str] = os.environ) -> Self:
        """`http[s]://HOST[:PORT][/PATH][/v1]`. Raises InputError."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port, parts = None, None, urlsplit("")
        more = parts.query or parts.fragment or parts.username is not None
        unclean = not url.isascii() or not url.isprintable() or " " in url
        if parts.scheme not in ("http", "https") or not host or more or unclean:
            raise InputError(f"--against is http://HOST:PORT or https://HOST, not {url!r}")
        tls = ssl.create_default_context() if parts.scheme == "https" else None
        key = environment.get(KEY_VARIABLE) or None
        if key is not None and not (key.isascii() and key.isprintable()):
            raise InputError(f"{KEY_VARIABLE} has characters that no header may have")
        root = parts.path.rstrip("/").removesuffix("/v1")
        return cls(host, port or (443 if tls else 80), root, tls, key)

    def get(self, path: str) -> Answer:
        return self._ask("GET", path, None)

    def post(self, path: str, body: Mapping[str, Any]) -> Answer:
        return self._ask("POST", path, json.dumps(body).encode())

    def _ask(self, method: str, path: str, content: bytes | None) -> Answer:
        headers = {"Content-Type": "application/json"} if content else {}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        connection = (
            SecureConnection(self.host, self.port, timeout=TIMEOUT_S, context=self.tls)
            if self.tls
            else Connection(self.host, self.port, timeout=TIMEOUT_S)
        )
        late = threading.Event()
        try:
            connection.connect()
            with _cut_after(TOTAL_S, connection.sock, late):
                connection.request(method, self.root + path, content, headers)
                response = connection.getresponse()
                raw = response.read(MAX_ANSWER + 1)
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise self._unreachable(path, _slow() if late.is_set() else reason) from None
        finally:
            connection.close()
        if late.is_set():  # the body ended because the connection was cut
            raise self._unreachable(path, _slow())
        if len(raw) > MAX_ANSWER:
            raise UnreachableError(f"{self.host}:{self.port}{path} answers with more than {MAX_ANSWER >> 20} MiB")
        try:
            return Answer(response.status, json.loads(raw))
        except (ValueError, RecursionError):
            return Answer(response.status, None)

    def _unreachable(self, path: str, reason: str) -> UnreachableError:
        return UnreachableError(f"no answer from {self.host}:{self.port}{self.root}{path}: {reason}")


def _slow() -> str:
    return f"it is not complete after {TOTAL_S:g} s"


@contextmanager
def _cut_after(seconds: float, sock: socket.socket, late: threading.Event) -> Iterator[None]:
    """Shut the socket from another thread when time is up, wherever this one waits: headers can drip too."""

    def cut() -> None:
        late.set()
        with suppress(OSError):  # it may be closed already
            sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
