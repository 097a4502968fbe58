"""Parsers of model output: reasoning sections and tool calls, read as they stream.

`model_format` says from a chat template how a model writes both; `OutputParser` takes the answer's text in pieces of
any size and gives out what each stretch is. Where the text is cut into pieces changes nothing, no character is lost
but structure (markers, blanks beside them, marks of tools' results), and the time is linear in the text.
"""

from __future__ import annotations

from openherd.parsers.formats import HERMES, LLAMA_3, MISTRAL, THINK_CLOSE, THINK_OPEN, ModelFormat, ToolFormat
from openherd.parsers.formats import model_format as model_format
from openherd.parsers.output import OutputParser
from openherd.parsers.pieces import Kind, Piece

__all__ = [
    "HERMES",
    "LLAMA_3",
    "MISTRAL",
    "THINK_CLOSE",
    "THINK_OPEN",
    "Kind",
    "ModelFormat",
    "OutputParser",
    "Piece",
    "ToolFormat",
    "model_format",
]
