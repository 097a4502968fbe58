"""Thoughts and answer as one text, for readers that have no other place for thoughts."""

from __future__ import annotations

from typing import Protocol

from openherd.parsers import THINK_CLOSE, THINK_OPEN


class Part(Protocol):
    """What is needed of a `Delta`."""

    @property
    def text(self) -> str: ...
    @property
    def reasoning(self) -> str: ...


class ThinkingAloud:
    """Joins the deltas of one answer as the model wrote them, the thinking section between its tags."""

    def __init__(self) -> None:
        self._is_thinking = False

    def text(self, delta: Part) -> str:
        written = ""
        if delta.reasoning:
            written = delta.reasoning if self._is_thinking else f"{THINK_OPEN}\n{delta.reasoning}"
            self._is_thinking = True
        if delta.text and self._is_thinking:
            self._is_thinking = False
            written += f"\n{THINK_CLOSE}\n\n"
        return written + delta.text
