"""Server-sent events out of the pieces of a body. WHATWG HTML, section 9.2: the `data` field only."""

from __future__ import annotations

from collections.abc import Iterator

from openherd.errors import HerdError

MAX_EVENT_BYTES = 2**20


class EventError(HerdError):
    """A body that is no stream of events."""


class EventParser:
    """Fed with pieces as they come, gives the data of each event that is whole. Holds at most `MAX_EVENT_BYTES`."""

    def __init__(self) -> None:
        self._line: list[bytes] = []  # the beginning of a line, in the pieces it came in
        self._line_size = 0
        self._data: list[bytes] = []  # of an event
        self._size = 0

    def feed(self, piece: bytes) -> Iterator[bytes]:
        first, *others = piece.split(b"\n")
        self._line.append(first)
        self._line_size += len(first) + 1  # a piece takes room even when it is empty
        if not others:
            self._check_size()
            return
        *whole, rest = others
        lines = [b"".join(self._line), *whole]
        self._line, self._line_size = [rest], len(rest)
        for line in lines:
            line = line.removesuffix(b"\r")
            if line:
                self._field(line)
            elif self._data:
                yield b"\n".join(self._data)
                self._data, self._size = [], 0
        self._check_size()

    def _check_size(self) -> None:
        if self._size + self._line_size > MAX_EVENT_BYTES:
            raise EventError(f"an event is longer than {MAX_EVENT_BYTES} bytes")

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
            self._size += len(value) + 1  # a line takes room even when it is empty
        elif name not in (b"", b"event", b"id", b"retry"):  # "": a comment, which keeps connections open
            raise EventError("a line of the stream is no field of an event")
