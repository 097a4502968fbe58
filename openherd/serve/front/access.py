"""Who may ask: API keys, and what each may use in a minute.

Without keys the server listens on this machine's own addresses only, and then takes only requests that were meant for
them: a page in a browser can make a name of its own point to 127.0.0.1 ("DNS rebinding"), and the Host header tells.

Programs send a key as `Authorization: Bearer` or `x-api-key`. A browser that opens the web chat is asked for it with
HTTP's Basic scheme (RFC 7617), any name and the key as the password: nothing is stored by a page, and the key goes to
this host and port alone, which a cookie would not keep to. But a browser sends it with whatever any site makes it ask
for, so a Basic key counts only for requests that do not come from another site.
"""

from __future__ import annotations

import base64
import binascii
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from starlette.types import ASGIApp, Receive, Scope, Send

from openherd.serve.front.bodies import headers_of_refusal
from openherd.serve.front.errors import ApiError
from openherd.serve.front.page import ask_for_key, wants_page
from openherd.serve.keys import Key, KeyRing
from openherd.serve.options import is_loopback

# Load balancers have no key.
OPEN_PATHS = frozenset({"/health", "/ready"})
MINUTE_S = 60.0


@dataclass(slots=True)
class _Allowance:
    """A bucket that fills evenly to a minute's worth (Turner 1986, leaky bucket as a meter)."""

    per_minute: int
    left: float
    at: float

    def seconds_until(self, amount: float, now: float) -> float:
        """How long until so much is there; 0 when it is."""
        self.left = min(self.per_minute, self.left + (now - self.at) * self.per_minute / MINUTE_S)
        self.at = now
        return max(0.0, (amount - self.left) * MINUTE_S / self.per_minute)


class Tenant:
    """One key in use."""

    def __init__(self, key: Key, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = key.name
        self.salt = key.salt.hex()
        self.is_admin = key.is_admin
        self._clock = clock
        now = clock()
        self._requests = _Allowance(key.requests, key.requests, now) if key.requests else None
        self._tokens = _Allowance(key.tokens, key.tokens, now) if key.tokens else None

    def begin(self) -> None:
        """Take one request. Raises `ApiError` 429 when the minute's requests or tokens are used up."""
        now = self._clock()
        for what, allowance in (("requests", self._requests), ("tokens", self._tokens)):
            # Tokens are known at the end only: one request may overdraw them, and the next waits for it.
            if allowance is not None and (wait := allowance.seconds_until(1, now)) > 0:
                raise ApiError(
                    429,
                    f"this key's {allowance.per_minute} {what} a minute are used up",
                    code="rate_limit_exceeded",
                    headers={"Retry-After": str(math.ceil(wait))},
                )
        if self._requests is not None:
            self._requests.left -= 1

    def used(self, tokens: int) -> None:
        """A request of this key's took so many."""
        if self._tokens is not None:
            self._tokens.seconds_until(0, self._clock())
            self._tokens.left -= tokens


class Access:
    """ASGI middleware. Puts the request's `Tenant` into its state, None where no keys are asked for."""

    def __init__(self, app: ASGIApp, keys: KeyRing) -> None:
        self._app = app
        self._keys = keys
        self._tenants: dict[str, Tenant] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            tenant = self._tenant(scope)
            if tenant is not None and scope["method"] == "POST":
                tenant.begin()
        except ApiError as error:
            error.headers |= headers_of_refusal(scope)
            asks = error.status == 401 and wants_page(scope)
            response = ask_for_key() if asks else error.response(scope["path"])
            await response(scope, receive, send)
            return
        scope["state"]["tenant"] = tenant
        scope["state"]["record"].key = tenant.name if tenant else None
        await self._app(scope, receive, send)

    def _tenant(self, scope: Scope) -> Tenant | None:
        if scope["path"] in OPEN_PATHS and scope["method"] == "GET":
            return None
        if not self._keys:
            _check_host(scope)
            return None
        presented = _presented(scope)
        key = self._keys.find(presented)
        if key is None:
            raise ApiError(
                401,
                "this key is not known here" if presented else "a key is needed: the header Authorization: Bearer KEY",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
        if key.name not in self._tenants:
            self._tenants[key.name] = Tenant(key)
        return self._tenants[key.name]


def _presented(scope: Scope) -> str:
    """The key of the request's headers; the empty string when there is none, or two."""
    found = []
    for name, value in scope["headers"]:
        text = value.decode("latin-1")
        if name == b"x-api-key":
            found.append(text.strip())
        elif name == b"authorization":
            scheme, _, credentials = text.partition(" ")
            if scheme.lower() == "bearer":
                found.append(credentials.strip())
            elif scheme.lower() == "basic":
                _check_site(scope)
                found.append(_password(credentials.strip()))
    return found[0] if len(set(found)) == 1 else ""


def _password(credentials: str) -> str:
    """Of `name:password` in base64; the empty string for what is not that."""
    try:
        decoded = base64.b64decode(credentials, validate=True).decode()
    except (binascii.Error, ValueError):
        return ""
    return decoded.partition(":")[2]


def _check_site(scope: Scope) -> None:
    """Raises `ApiError` 403 for a request that another site made a browser send; a link to the page may be followed.

    Browsers say who asks in Sec-Fetch-Site; over plain HTTP to another machine only in Origin, and there only where the
    request could change something: the answers to others they keep from that site.
    """
    if not (wants_page(scope) or is_own_site(scope)):
        raise ApiError(403, "a browser's key is taken from this server's own page only", code="cross_site")


def is_own_site(scope: Scope) -> bool:
    """Whether the request comes from no browser's page, or from this server's own."""
    headers = dict(scope["headers"])
    site = headers.get(b"sec-fetch-site")
    origin = headers.get(b"origin")
    is_own = origin is None or origin.partition(b"://")[2] == headers.get(b"host")
    return is_own if site is None else site in (b"none", b"same-origin")


def _check_host(scope: Scope) -> None:
    """Raises `ApiError` 403 for a request that was meant for another name than this machine's own."""
    hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
    if not all(is_loopback(_without_port(host)) for host in hosts) or len(hosts) > 1:
        raise ApiError(
            403,
            "this server has no keys and takes requests to localhost only; behind a proxy, give it keys (--keys)",
            code="wrong_host",
        )


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if host.count(":") == 1 else host
