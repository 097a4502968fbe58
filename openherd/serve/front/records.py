"""What is kept of a request while it runs, and the log that gets a line of it in the end.

By default a line holds nothing that a client wrote but its x-request-id, which has letters, digits and four marks:
paths are the server's own, models are named as the server names them, and there is no text. Lines are written by a
thread of their own: a reader of standard error that stands still delays no request; it costs lines, which are counted.
"""

from __future__ import annotations

import json
import re
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from queue import SimpleQueue
from threading import Thread
from typing import Any

from openherd.serve.api.answers import Usage
from openherd.serve.options import LogFormat

MAX_WAITING_LINES = 10_000
MAX_PROMPT_CHARACTERS = 65_536
_LAST_LINES_S = 1.0
_SANE_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")


def request_id(presented: Sequence[bytes]) -> str:
    """The client's own x-request-id where there is one and it is harmless, else a random one."""
    if len(presented) == 1 and _SANE_ID.fullmatch(text := presented[0].decode("latin-1")):
        return text
    return secrets.token_hex(12)


@dataclass(slots=True)
class Record:
    """One request. The parts that answer it fill in what they know."""

    id: str
    method: str = "other"
    path: str = "other"
    arrived: float = field(default_factory=time.monotonic)
    status: int | None = None  # None: the client left before there was one
    key: str | None = None
    model: str | None = None
    stream: bool = False
    prompts: Any = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None  # of whole answers
    cached_tokens: int | None = None
    finish_reason: str | None = None
    ttft_s: float | None = None

    def answered(self, usage: Usage, first_text: float | None, reasons: Sequence[str | None]) -> None:
        """A generation has ended, whole or not: `reasons` has None for a choice that was cut off."""
        self.prompt_tokens, self.cached_tokens = usage.prompt_tokens, usage.cached_tokens
        self.completion_tokens = None if None in reasons else usage.completion_tokens
        self.finish_reason = "+".join(sorted({reason or "unfinished" for reason in reasons}))
        self.ttft_s = None if first_text is None else first_text - self.arrived

    def document(self, *, with_prompts: bool) -> dict[str, Any]:
        """Now, as the request ends."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        document = {
            "time": now,
            "id": self.id,
            "key": self.key,
            "method": self.method,
            "path": self.path,
            "status": self.status,
            "model": self.model,
            "stream": self.stream,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "cached_tokens": self.cached_tokens,
            "finish_reason": self.finish_reason,
            "ttft_s": None if self.ttft_s is None else round(self.ttft_s, 4),
            "duration_s": round(time.monotonic() - self.arrived, 4),
        }
        return {**document, "prompts": _cut(self.prompts)} if with_prompts else document


class RequestLog:
    """Lines on standard error (or `write`), in the form of --log."""

    def __init__(
        self, form: LogFormat, *, with_prompts: bool = False, write: Callable[[str], object] | None = None
    ) -> None:
        self._form = form
        self._with_prompts = with_prompts
        self._write = write or _to_stderr
        self._lines: SimpleQueue[str | None] = SimpleQueue()
        self._num_dropped = 0
        self._thread = Thread(target=self._run, name="log", daemon=True)
        if form != "off":
            self._thread.start()

    def add(self, record: Record) -> None:
        """Returns at once."""
        if self._form == "off":
            return
        if self._lines.qsize() >= MAX_WAITING_LINES:
            self._num_dropped += 1
            return
        if self._num_dropped:
            self._lines.put(self._dropped())
        document = record.document(with_prompts=self._with_prompts)
        self._lines.put(_escaped(document) if self._form == "json" else text_line(document))

    def close(self) -> None:
        """Write what waits, unless nobody takes it in."""
        if self._form != "off":
            self._lines.put(None)
            self._thread.join(_LAST_LINES_S)

    def _run(self) -> None:
        while (line := self._lines.get()) is not None:
            try:
                self._write(line + "\n")
            except (OSError, ValueError):  # nobody reads it any more
                return

    def _dropped(self) -> str:
        count, self._num_dropped = self._num_dropped, 0
        return _escaped({"dropped_lines": count}) if self._form == "json" else f"{count} lines were dropped"


def text_line(document: dict[str, Any]) -> str:
    """For a person: `TIME STATUS METHOD PATH SECONDS name=value ...`."""
    first = ("time", "status", "method", "path", "duration_s")
    head = f"{document['time']} {document['status'] or '-'} {document['method']} {document['path']}"
    rest = [
        f"{name}={_plain(value)}"
        for name, value in document.items()
        if name not in first and value is not None and value is not False
    ]
    return " ".join([head, f"{document['duration_s']:.3f}s", *rest])


def _plain(value: Any) -> str:
    return value if isinstance(value, str) and value.isascii() and value.isprintable() else _escaped(value)


def _escaped(value: Any) -> str:
    """One line of printable ASCII: no text can end a line, colour a terminal or forge an entry."""
    return json.dumps(value, separators=(",", ":")).replace("\x7f", "\\u007f")


def _cut(prompts: Any) -> Any:
    text = json.dumps(prompts)
    return (
        prompts if len(text) <= MAX_PROMPT_CHARACTERS else f"{text[:MAX_PROMPT_CHARACTERS]}... ({len(text)} characters)"
    )


def _to_stderr(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()
