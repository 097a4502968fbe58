"""The marks around a tool's result, which a model that has read them may write into its own answer."""

from __future__ import annotations

from openherd.parsers.markers import held_prefix


class ResultMarks:
    """Leaves these marks out of text, each with the line break behind it; what stands between them stays."""

    def __init__(self, marks: tuple[str, ...]) -> None:
        self._marks = marks
        self._held = ""  # may become a mark
        self._skips_break = False  # the last thing read was a mark

    @property
    def num_held(self) -> int:
        return len(self._held)

    def add(self, text: str) -> str:
        """What may be given out."""
        text = self._held + text
        out: list[str] = []
        while text:
            if self._skips_break:
                self._skips_break = False
                text = text.removeprefix("\n")
            at, mark = min(((text.find(mark), mark) for mark in self._marks if mark in text), default=(-1, ""))
            if at < 0:
                break
            out.append(text[:at])
            text = text[at + len(mark) :]
            self._skips_break = True
        cut = len(text) - max((held_prefix(text, mark) for mark in self._marks), default=0)
        self._held = text[cut:]
        return "".join((*out, text[:cut]))

    def flush(self) -> str:
        """What was held, now that no mark comes of it."""
        held, self._held = self._held, ""
        return held
