"""What a person sees while a model is fetched: first what and from where, then how far."""

from __future__ import annotations

import sys
import time
from typing import Protocol, TextIO

from openherd.visible import visible


class Progress(Protocol):
    """Told about a fetch; a graphical front or a test brings its own."""

    def say(self, text: str) -> None:
        """Lines for the person, complete in themselves."""

    def advance(self, done: int, total: int) -> None:
        """`done` of `total` bytes are here."""

    def finish(self) -> None:
        """The transfer ended, well or not."""


class TerminalProgress:
    """Writes to standard error: one line that renews itself on a terminal, a line for each tenth elsewhere.

    What is said may hold names of strangers' files: their control characters are shown, not obeyed.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._live = self._stream.isatty()
        self._first: tuple[float, int] | None = None
        self._last_shown = 0.0
        self._tenth = -1

    def say(self, text: str) -> None:
        print(visible(text), file=self._stream, flush=True)

    def advance(self, done: int, total: int) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first = (now, done)
        if self._live:
            if done >= total or now - self._last_shown >= 0.1:
                self._last_shown = now
                self._stream.write(f"\r  {self._line(now, done, total)}\x1b[K")
                self._stream.flush()
        elif (tenth := done * 10 // total) > self._tenth:
            self._tenth = tenth
            self.say(f"  {self._line(now, done, total)}")

    def finish(self) -> None:
        if self._live and self._first is not None:
            self._stream.write("\n")
            self._stream.flush()
        self._first = None
        self._tenth = -1

    def _line(self, now: float, done: int, total: int) -> str:
        assert self._first is not None
        started, had = self._first
        line = f"{done / total:4.0%}  {megabytes(done)} of {megabytes(total)}"
        if now - started < 0.5 or done == had:
            return line
        rate = (done - had) / (now - started)
        return f"{line}  {megabytes(round(rate))}/s  {(total - done) / rate:.0f} s left"


def megabytes(num_bytes: float) -> str:
    """A size for people, in units of a million bytes; from ten thousand of these on, of a thousand million."""
    return f"{num_bytes / 1e6:.1f} MB" if num_bytes < 1e10 else f"{num_bytes / 1e9:.1f} GB"
