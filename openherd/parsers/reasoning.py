"""The thinking section at the beginning of an answer."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum, auto

from openherd.parsers.formats import THINK_CLOSE, THINK_OPEN
from openherd.parsers.markers import Section, held_prefix
from openherd.parsers.pieces import Kind, Piece


class _State(Enum):
    START = auto()  # blanks, and what may become <think>
    THINKING = auto()
    DONE = auto()


class ReasoningParser:
    """Cuts off the section; what comes after it goes out as text. One that never ends is all reasoning.

    Only a section that opens the answer counts, or one that the prompt has opened: elsewhere the tags are text.
    """

    def __init__(self, *, is_open: bool) -> None:
        self._state = _State.THINKING if is_open else _State.START
        self._before = Section(after_marker=False)  # blanks before the answer's first word
        self._held = ""
        self._section = Section(after_marker=True)
        self._skips = False  # blanks after the section
        self._num_read = 0
        self.end: int | None = None if is_open else 0
        """Characters of the answer up to the end of the section; None inside of it, 0 where there is none."""

    @property
    def num_held(self) -> int:
        return self._before.num_held + len(self._held) + self._section.num_held

    def add(self, text: str) -> Iterator[Piece]:
        self._num_read += len(text)
        text = self._held + text
        self._held = ""
        if self._state is _State.START:
            text = self._start(text)
        if self._state is _State.THINKING:
            thought, text = self._think(text)
            if thought:
                yield Piece(Kind.REASONING, thought)
        if self._state is _State.DONE:
            if self._skips:
                text = text.lstrip()
                self._skips = not text
            if text:
                yield Piece(Kind.TEXT, text)

    def finish(self) -> Iterator[Piece]:
        """What was held back, now that nothing follows."""
        if self._state is _State.THINKING:
            rest = self._section.add(self._held) + self._section.flush()
            if rest:
                yield Piece(Kind.REASONING, rest)
        elif self._held or self._before.num_held:
            yield Piece(Kind.TEXT, self._before.flush() + self._held)
        self._held = ""

    def _start(self, text: str) -> str:
        """What is left of `text` once it is known whether the answer begins with a section."""
        begun = text.lstrip()
        self._before.add(text[: len(text) - len(begun)])
        if begun.startswith(THINK_OPEN):
            self._before = Section(after_marker=False)
            self._state = _State.THINKING
            self.end = None
            return begun[len(THINK_OPEN) :]
        if THINK_OPEN.startswith(begun):
            self._held = begun
            return ""
        self._state = _State.DONE
        return self._before.flush() + begun

    def _think(self, text: str) -> tuple[str, str]:
        """More of the section, and what comes after it."""
        at = text.find(THINK_CLOSE)
        if at >= 0:
            self._state = _State.DONE
            self._skips = True
            thought = self._section.add(text[:at])
            self._section = Section(after_marker=True)  # the blanks before the marker are dropped with the old one
            rest = text[at + len(THINK_CLOSE) :]
            self.end = self._num_read - len(rest)
            return thought, rest
        length = held_prefix(text, THINK_CLOSE)
        cut = len(text) - length
        self._held = text[cut:]
        return self._section.add(text[:cut]), ""
