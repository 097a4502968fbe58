"""Text in, text out: templates, stop strings, guards, schemas and scoring over one engine."""

from openherd.constrain import Grammar
from openherd.llm.answer import Delta
from openherd.llm.guards import Decision, TextGuard
from openherd.llm.llm import LLM
from openherd.llm.requests import Hooks
from openherd.llm.scoring import Score
from openherd.llm.stream import Stream

__all__ = ["LLM", "Decision", "Delta", "Grammar", "Hooks", "Score", "Stream", "TextGuard"]
