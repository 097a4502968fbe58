"""Text guards: the place where a policy reads what goes in and what comes out.

A guard sees text, never tokens. Nothing that it holds reaches the caller before it says so; what it stops was never
given out, neither as text nor as tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol, Self

from openherd.messages import Span


class Decision(StrEnum):
    RELEASE = "release"  # give the held text out
    HOLD = "hold"  # keep it back until more has come
    STOP = "stop"  # drop it and end the answer with FinishReason.CONTENT_FILTER


class TextGuard(Protocol):
    """Watches one answer. An exception ends that request only, with FinishReason.ERROR."""

    def on_prompt(self, spans: Sequence[Span]) -> Decision:
        """The whole prompt, first of all and before anything is computed. Only RELEASE lets it through."""

    def on_text(self, held: str, final: bool) -> Decision:
        """All text not yet given out. When `final`, no more will come, and HOLD counts as STOP."""

    def fork(self) -> Self:
        """An independent guard for another answer, to this prompt or another."""
