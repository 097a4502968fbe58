"""HTTP as pip would do it: its certificates, its proxy, its index's credentials. Only this file opens connections."""

from __future__ import annotations

import base64
import http.client
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit
from urllib.request import HTTPSHandler, OpenerDirector, ProxyHandler, Request, build_opener

from openherd import __version__
from openherd.errors import DownloadError
from openherd.store.pip_settings import PipSettings

_TRY_AGAIN = {408, 425, 429, *range(500, 600)}


class WebError(Exception):
    """No usable answer; the message says why."""


class RefusedError(WebError):
    """The server, its certificate or the kind of address says no; trying again will not help, another client may."""


class UnreachableError(WebError):
    """The network failed, or the server for now; trying again may help."""


class Response:
    """An answer whose body is read in pieces. Any failure while reading is an UnreachableError."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self.url: str = raw.url
        self.status: int = raw.status

    def header(self, name: str) -> str:
        return str(self._raw.headers.get(name, ""))

    def chunks(self, size: int) -> Iterator[bytes]:
        """The body as it arrives, at most `size` bytes at a time."""
        while True:
            with _translated():
                chunk: bytes = self._raw.read1(size)
            if not chunk:
                return
            yield chunk

    def text(self, limit: int) -> bytes:
        """The whole body, which must not be longer than `limit` bytes."""
        with _translated():
            body: bytes = self._raw.read(limit + 1)
        if len(body) > limit:
            raise RefusedError(f"an answer of more than {limit} bytes where a page was expected")
        return body


class Web:
    """Opens http and https addresses. Credentials written in an index's address go to that host alone."""

    def __init__(self, settings: PipSettings) -> None:
        self._timeout_s = settings.timeout_s
        self._opener = _opener(settings)
        self._credentials = {
            _host(parts): f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            for parts in map(urlsplit, settings.indexes)
            if parts.username
        }

    @contextmanager
    def open(self, url: str, headers: Mapping[str, str]) -> Iterator[Response]:
        """The answer, after redirects. Raises RefusedError or UnreachableError."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https"):
            raise RefusedError(f"{parts.scheme or 'no'} is not http or https")
        request = Request(without_credentials(url), headers={"User-Agent": f"openherd/{__version__}", **headers})
        if credentials := self._credentials.get(_host(parts)):
            # Unredirected: not sent on to another host that the index points to.
            basic = base64.b64encode(credentials.encode()).decode()
            request.add_unredirected_header("Authorization", f"Basic {basic}")
        with _translated():
            raw = self._opener.open(request, timeout=self._timeout_s)
        with raw:
            yield Response(raw)


def without_credentials(url: str) -> str:
    """`url` as it may be shown and sent: without user name and password."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=_host(parts)))


def _host(parts: SplitResult) -> str:
    return parts.netloc.rpartition("@")[2]


def _opener(settings: PipSettings) -> OpenerDirector:
    proxies = {"http": settings.proxy, "https": settings.proxy} if settings.proxy else None
    return build_opener(HTTPSHandler(context=_tls(settings.certificates)), ProxyHandler(proxies))


def _tls(certificates: str | None) -> ssl.SSLContext:
    """`certificates` is a file or a folder of authorities; None: those of this machine."""
    if certificates is None:
        return ssl.create_default_context()
    try:
        if Path(certificates).is_dir():
            return ssl.create_default_context(capath=certificates)
        return ssl.create_default_context(cafile=certificates)
    except OSError as error:
        raise DownloadError(
            f"the certificates that pip is configured for cannot be read: {certificates}: {error.strerror}",
            hint="see: pip config list",
        ) from error


@contextmanager
def _translated() -> Iterator[None]:
    """The many exceptions of sockets, TLS and HTTP as our two."""
    try:
        yield
    except HTTPError as error:
        error.close()
        kind = UnreachableError if error.code in _TRY_AGAIN else RefusedError
        raise kind(f"HTTP {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, URLError) else error
        kind = RefusedError if isinstance(reason, ssl.SSLCertVerificationError) else UnreachableError
        raise kind(str(reason) or type(reason).__name__) from error
