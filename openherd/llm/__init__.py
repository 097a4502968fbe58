"""Text in, text out: templates, stop strings, guards, schemas and scoring over one engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from openherd.llm.answer import Delta
from openherd.llm.guards import Decision, TextGuard
from openherd.llm.llm import LLM
from openherd.llm.requests import Hooks
from openherd.llm.stream import Stream
from openherd.llm.tools import NamedTool

if TYPE_CHECKING:
    from openherd.constrain import Grammar
    from openherd.llm.scoring import Score

__all__ = ["LLM", "Decision", "Delta", "Grammar", "Hooks", "NamedTool", "Score", "Stream", "TextGuard"]


def __getattr__(name: str) -> Any:
    """On first use: most programs constrain nothing and score nothing."""
    if name == "Grammar":
        from openherd.constrain import Grammar

        return Grammar
    if name == "Score":
        from openherd.llm.scoring import Score

        return Score
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
