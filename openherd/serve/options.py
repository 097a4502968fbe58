"""What `herd serve` can be told, beside the engine's own options."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Literal

from openherd.errors import OptionError

LogFormat = Literal["text", "json", "off"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}")
_ORIGIN = re.compile(r"https?://[a-z0-9._~\[\]:-]+")


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """How requests come in. Nothing here changes what is answered."""

    host: str = "127.0.0.1"
    """Address to listen on; any but this machine's own (loopback) needs API keys."""
    port: int = 8080
    """Port to listen on; 0 takes a free one and says which."""
    queue: int = 64
    """Requests that may wait for each model while it is full; one more is answered 429 at once."""
    max_body: int = 2 * 2**20
    """Most bytes of a request's body."""
    drain_limit: float = 30.0
    """Seconds that running answers may take to finish after SIGTERM."""
    keys: str | None = None
    """File of API keys, of which each request must have one; OPENHERD_API_KEYS has more. --add-key NAME makes them."""

    memory: int | None = None
    """Bytes for all models together; none: 70% of the free memory, and a single model takes what it needs."""
    load_wait: float = 60.0
    """Seconds that a request waits for a model that is being loaded; then it is answered 503."""
    require_model: bool = False
    """Refuse requests that name no model, as OpenAI's API does, instead of giving them to the first one."""
    cors_origin: tuple[str, ...] = ()
    """Let pages of this origin, such as https://app.example, use the server from a browser; may be given again."""
    log: LogFormat = "text"
    """A line on standard error for each request, without anything that its client wrote."""
    log_prompts: bool = False
    """Write prompts into that log too."""

    def __post_init__(self) -> None:
        _within("--port", self.port, 0, 65535)
        _within("--queue", self.queue, 0, 100_000)
        _within("--max-body", self.max_body, 1024, 2**30)
        _within("--drain-limit", self.drain_limit, 0, 86_400)
        _within("--load-wait", self.load_wait, 0, 86_400)
        if self.memory is not None:
            _within("--memory", self.memory, 2**20, 2**46)
        if self.log not in ("text", "json", "off"):
            raise OptionError(f"--log must be text, json or off, not {self.log!r}")
        for origin in self.cors_origin:
            if not _ORIGIN.fullmatch(origin):
                raise OptionError(
                    f"--cors-origin must be scheme://host or scheme://host:port in small letters, not {origin[:80]!r}",
                    hint="try: --cors-origin https://app.example; every origin is named, there is no *",
                )

    def check_exposure(self, *, has_keys: bool) -> None:
        """Raises `OptionError` for an address that strangers reach while nobody asks who they are."""
        if not has_keys and not is_loopback(self.host):
            raise OptionError(
                f"--host {self.host} can be reached from other machines, and without keys anybody may use the model",
                hint="try: --keys FILE, made by herd serve --keys FILE --add-key NAME",
            )


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """One of several models, beside the engine's own options."""

    model: str | None = None
    """A catalogue name or a file; none: the default model."""
    name: str | None = None
    """Name that requests use; none: the catalogue's, or the file's without its ending."""
    template: str | None = None
    """A built-in chat template (chatml, llama-2, llama-3) or a Jinja file instead of the model's own."""
    adapter: tuple[str, ...] = ()
    """LoRA adapters, as NAME=PATH or PATH; requests choose one by giving NAME as their model."""
    load: Literal["start", "demand"] = "start"
    """When it is loaded: at the start, or when it is first asked for."""

    def __post_init__(self) -> None:
        if self.name is not None and not _NAME.fullmatch(self.name):
            raise OptionError(f"name must be of letters, digits and . _ : / -, at most 128, not {self.name[:200]!r}")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach that address. No name but localhost is resolved: names may change."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _within(flag: str, value: float, low: int, high: int) -> None:
    if not low <= value <= high:
        raise OptionError(f"{flag} must be from {low} to {high}, not {value}")
