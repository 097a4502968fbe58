"""Finding a marker in text that streams."""

from __future__ import annotations


def held_prefix(text: str, marker: str) -> int:
    """Characters at the end of `text` that may become `marker`: the longest that are a proper prefix of it."""
    for length in range(min(len(text), len(marker) - 1), 0, -1):
        if text.endswith(marker[:length]):
            return length
    return 0


class Section:
    """Text between two markers, without the blanks beside them: those belong to the markers."""

    def __init__(self, *, after_marker: bool) -> None:
        self._skips = after_marker  # nothing but blanks has come since the marker
        self._blanks: list[str] = []  # at the end so far: they go out only if text follows
        self.num_held = 0

    def add(self, text: str) -> str:
        """What may be given out."""
        if self._skips:
            text = text.lstrip()
            self._skips = not text
        if not text:
            return ""
        kept = text.rstrip()
        if not kept:
            self._hold(text)
            return ""
        out = "".join((*self._blanks, kept))
        self._blanks, self.num_held = [], 0
        self._hold(text[len(kept) :])
        return out

    def flush(self) -> str:
        """The blanks at the end, where no marker follows."""
        out = "".join(self._blanks)
        self._blanks, self.num_held = [], 0
        return out

    def _hold(self, blanks: str) -> None:
        if blanks:
            self._blanks.append(blanks)
            self.num_held += len(blanks)
