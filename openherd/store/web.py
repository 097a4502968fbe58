"""HTTP for fetching: certificates, proxies, redirects, credentials. Only this file opens connections.

Credentials belong to an origin (scheme, host, port): a redirect within it carries them on, one to elsewhere does not.
Redirects lead to http and https only, and never from https to http. Not covered: a server that lets the head of its
answer drip; whoever waits can interrupt.
"""

from __future__ import annotations

import http.client
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.message import Message
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urljoin, urlsplit, urlunsplit
from urllib.request import (
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
    build_opener,
)

from openherd import __version__
from openherd.errors import DownloadError
from openherd.store.bounded_http import Connection, SecureConnection

_TRY_AGAIN = {408, 425, 429, *range(500, 600)}
SLOWEST_BYTES, SLOWEST_S = 32_000, 30.0
"""A connection that brings less than so much in so long hangs rather than works, and counts as cut."""
_TEXT_S = 60.0  # for a whole page; each of its packets may take the connection's time-out


class WebError(Exception):
    """No usable answer; the message says why. `status` and `headers` are the server's, where it answered."""

    def __init__(self, message: str, *, status: int | None = None, headers: Message | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers if headers is not None else Message()


class RefusedError(WebError):
    """The server, its certificate or the kind of address says no; trying again will not help, another client may."""


class UnreachableError(WebError):
    """The network failed, or the server for now; trying again may help."""

    def retry_after_s(self) -> float | None:
        """Seconds that the server asks to wait: `Retry-After` as a number or a date, or what `RateLimit` says."""
        value = str(self.headers.get("Retry-After", "")).strip()
        if value.isascii() and value.isdigit():
            return float(value[:9])
        if value:
            try:
                return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
            except (ValueError, OverflowError):
                return None
        # `"api";r=0;t=55`: nothing remains, and the window ends in 55 s (IETF draft ratelimit-headers-09)
        fields = dict(
            part.strip().split("=", 1) for part in self.headers.get("RateLimit", "").split(";") if "=" in part
        )
        seconds = fields.get("t", "")
        return float(seconds[:9]) if fields.get("r") == "0" and seconds.isascii() and seconds.isdigit() else None


class SlowError(UnreachableError):
    """Next to nothing comes; the little that came does not count as a gain."""


class Response:
    """An answer whose body is read in pieces. Any failure while reading is an UnreachableError."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self.url: str = raw.url
        self.status: int = raw.status

    def header(self, name: str) -> str:
        return str(self._raw.headers.get(name, ""))

    def chunks(self, size: int) -> Iterator[bytes]:
        """The body as it arrives, at most `size` bytes at a time. A connection that hangs is a SlowError."""
        since, came = time.monotonic(), 0
        while True:
            with _translated():
                chunk: bytes = self._raw.read1(size)
            if not chunk:
                return
            yield chunk
            came += len(chunk)
            if time.monotonic() - since >= SLOWEST_S:
                if came < SLOWEST_BYTES:
                    raise SlowError(f"only {came} bytes came in {SLOWEST_S:.0f} s")
                since, came = time.monotonic(), 0

    def text(self, limit: int) -> bytes:
        """The whole body, which must not be longer than `limit` bytes, nor take more than a minute."""
        body, end = bytearray(), time.monotonic() + _TEXT_S
        for chunk in self.chunks(1 << 16):
            body += chunk
            if len(body) > limit:
                raise RefusedError(f"an answer of more than {limit} bytes where a page was expected")
            if time.monotonic() > end:
                raise UnreachableError(f"the answer took more than {_TEXT_S:.0f} s")
        promised = self.header("Content-Length")
        if promised.isascii() and promised.isdigit() and len(body) < int(promised[:18]):
            raise UnreachableError("the connection ended early")
        return bytes(body)


class Web:
    """Opens http and https addresses. `authorization` has, for an origin, the header of that name."""

    def __init__(
        self,
        *,
        certificates: str | None = None,
        proxy: str | None = None,
        timeout_s: float = 15.0,
        authorization: Mapping[str, str] | None = None,
    ) -> None:
        self._timeout_s = timeout_s
        self._authorization = dict(authorization or {})
        self._opener = self._make_opener(certificates, proxy)

    @contextmanager
    def open(self, url: str, headers: Mapping[str, str]) -> Iterator[Response]:
        """The answer, after redirects. Raises RefusedError or UnreachableError."""
        with _translated():
            _require_http(url)
            request = Request(without_credentials(url), headers={"User-Agent": f"openherd/{__version__}", **headers})
            self._authorize(request)
            raw = self._opener.open(request, timeout=self._timeout_s)
        with raw:
            yield Response(raw)

    def _authorize(self, request: Request) -> None:
        if value := self._authorization.get(origin(request.full_url)):
            # Unredirected: a redirect passes through here again, for its own origin.
            request.add_unredirected_header("Authorization", value)

    def _make_opener(self, certificates: str | None, proxy: str | None) -> OpenerDirector:
        authorize = self._authorize

        class Redirects(HTTPRedirectHandler):
            max_redirections = 5

            def redirect_request(self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
                target = urljoin(req.full_url, newurl)
                _require_http(target)
                if req.full_url.startswith("https:") and not target.startswith("https:"):
                    raise RefusedError(f"a redirect leaves https for {without_credentials(target)}")
                request = super().redirect_request(req, fp, code, msg, headers, without_credentials(target))
                if request is not None:
                    authorize(request)
                return request

        proxies = {"http": proxy, "https": proxy} if proxy else None
        return build_opener(_Http(), _Https(context=_tls(certificates)), ProxyHandler(proxies), Redirects())


class _Http(HTTPHandler):
    def do_open(self, http_class: Any, req: Request, **options: Any) -> http.client.HTTPResponse:
        return super().do_open(Connection, req, **options)


class _Https(HTTPSHandler):
    def do_open(self, http_class: Any, req: Request, **options: Any) -> http.client.HTTPResponse:
        return super().do_open(SecureConnection, req, **options)


def without_credentials(url: str) -> str:
    """`url` as it may be shown and sent: without user name and password."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def origin(url: str) -> str:
    """Scheme, host and port, which credentials are for."""
    parts = urlsplit(url)
    port = parts.port or {"https": 443}.get(parts.scheme, 80)
    return f"{parts.scheme}://{(parts.hostname or '').lower()}:{port}"


def _require_http(url: str) -> None:
    scheme = urlsplit(url).scheme
    if scheme not in ("http", "https"):
        raise RefusedError(f"{scheme or 'no'} is not http or https")


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
            f"the certificates that fetching is configured for cannot be read: {certificates}: {error.strerror}",
            hint="see: pip config list, REQUESTS_CA_BUNDLE",
        ) from error


@contextmanager
def _translated() -> Iterator[None]:
    """The many exceptions of addresses, sockets, TLS and HTTP as our two."""
    try:
        yield
    except HTTPError as error:
        error.close()
        kind = UnreachableError if error.code in _TRY_AGAIN else RefusedError
        raise kind(f"HTTP {error.code} {error.reason}", status=error.code, headers=error.headers) from error
    except (OSError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, URLError) else error
        kind = RefusedError if isinstance(reason, ssl.SSLCertVerificationError) else UnreachableError
        raise kind(str(reason) or type(reason).__name__) from error
    except ValueError as error:
        raise RefusedError(f"an address that cannot be opened: {error}") from error
