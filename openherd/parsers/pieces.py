"""What a stretch of model output is."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    TEXT = "text"
    REASONING = "reasoning"
    CALL = "call"  # a call begins; the piece's text is the function's name
    ARGUMENTS = "arguments"  # more of that call's arguments


@dataclass(frozen=True, slots=True)
class Piece:
    kind: Kind
    text: str
