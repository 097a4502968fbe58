"""Which hub, and as whom: the variables and the token file that the hub's own tools use, so that nothing is set twice.

Read here: `HF_ENDPOINT`, `HF_TOKEN` (and its older name), `HF_TOKEN_PATH`, `HF_HOME`, `XDG_CACHE_HOME`,
`HF_HUB_OFFLINE`, `HF_HUB_DISABLE_IMPLICIT_TOKEN`. Not covered: tokens from an identity provider or renewed by OAuth.
"""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from openherd.errors import InputError
from openherd.store.hub_reference import DEFAULT_ENDPOINT

_TRUE = {"1", "on", "yes", "true"}
_MAX_TOKEN = 4096


@dataclass(frozen=True, slots=True)
class HubSettings:
    """`token` is never shown. `token_source` is where it came from, `token_file` where one would be looked for."""

    endpoint: str
    token: str | None = field(repr=False)
    token_source: str
    token_file: Path
    offline: bool


def read_hub_settings() -> HubSettings:
    """Raises InputError for an HF_ENDPOINT that is no address, or a token that no header can carry."""
    endpoint = (os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")
    _check_endpoint(endpoint)
    file = _token_file()
    token, source = _token(file)
    if token is not None and not (token.isascii() and token.isprintable() and len(token) <= _MAX_TOKEN):
        raise InputError(f"the token in {source} has characters that a token cannot have", hint="set HF_TOKEN anew")
    return HubSettings(endpoint, token, source, file, _is_true("HF_HUB_OFFLINE"))


def may_carry_token(endpoint: str) -> bool:
    """Whether a token may be sent there: encrypted, or without leaving this machine."""
    parts = urlsplit(endpoint)
    if parts.scheme == "https":
        return True
    host = parts.hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_endpoint(endpoint: str) -> None:
    try:
        parts = urlsplit(endpoint)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
        sound = sound and not (parts.username or parts.query or parts.fragment) and endpoint.isprintable()
    except ValueError:
        sound = False
    if not sound:
        raise InputError(f"HF_ENDPOINT is {endpoint!r}, which is not the address of a hub", hint="try: https://HOST")


def _token_file() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or f"{cache}/huggingface"
    return Path(os.path.expandvars(os.path.expanduser(os.environ.get("HF_TOKEN_PATH") or f"{home}/token")))


def _token(file: Path) -> tuple[str | None, str]:
    if _is_true("HF_HUB_DISABLE_IMPLICIT_TOKEN"):
        return None, "nowhere"
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if token := os.environ.get(name, "").strip():
            return token, name
    try:
        with file.open("rb") as opened:
            token = opened.read(_MAX_TOKEN + 1).decode().strip()
    except (OSError, ValueError):
        return None, "nowhere"
    return token or None, str(file)


def _is_true(name: str) -> bool:
    return os.environ.get(name, "").lower() in _TRUE
