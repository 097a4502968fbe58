"""An answer's text as its reader gets it: text, reasoning, and tool calls with ids of their own."""

from __future__ import annotations

import os

from openherd.messages import ToolCall, ToolCallDelta
from openherd.parsers import Kind, OutputParser, Piece


class ParsedText:
    """What guard and stop strings let through. Without a parser all of it is text."""

    def __init__(self, parser: OutputParser | None = None) -> None:
        self._parser = parser
        self._num_read = 0
        self._parts: list[Piece | ToolCallDelta] = []  # as the model wrote them
        self._num_calls = 0
        self._num_taken = 0  # parts already given out
        self._is_finished = False

    @property
    def num_settled(self) -> int:
        """Characters of the answer whose part is known."""
        return self._num_read - (self._parser.num_held if self._parser else 0)

    @property
    def has_calls(self) -> bool:
        return self._num_calls > 0

    @property
    def text(self) -> str:
        return _joined(self._parts, Kind.TEXT)

    @property
    def reasoning(self) -> str:
        return _joined(self._parts, Kind.REASONING)

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        deltas = _calls(self._parts)
        opened = [delta for delta in deltas if delta.id is not None]
        arguments = [""] * len(opened)
        for delta in deltas:
            arguments[delta.index] += delta.arguments
        return tuple(
            ToolCall(delta.id or "", delta.name or "", given) for delta, given in zip(opened, arguments, strict=True)
        )

    @property
    def reasoning_end(self) -> int | None:
        """See `OutputParser.reasoning_end`."""
        return self._parser.reasoning_end if self._parser else 0

    def add(self, text: str) -> None:
        self._num_read += len(text)
        self._sort(self._parser.add(text) if self._parser else [Piece(Kind.TEXT, text)])

    def finish(self) -> None:
        """No more will come. Safe to repeat."""
        if self._parser and not self._is_finished:
            self._is_finished = True
            self._sort(self._parser.finish())

    def take(self) -> tuple[str, str, tuple[ToolCallDelta, ...]]:
        """Text, reasoning and calls that are new since the last time, as far as they stand in the order of a delta:
        reasoning, text, calls. What comes after them is for the next time.

        A step may bring a call and text behind it (accepted drafts, or what a stop string had held back), and where the
        steps were cut must not change the order of an answer's parts.
        """
        first = end = self._num_taken
        while end < len(self._parts) and (end == first or _rank(self._parts[end - 1]) <= _rank(self._parts[end])):
            end += 1
        self._num_taken = end
        new = self._parts[first:end]
        return _joined(new, Kind.TEXT), _joined(new, Kind.REASONING), tuple(_calls(new))

    def _sort(self, pieces: list[Piece]) -> None:
        for piece in pieces:
            if piece.kind is Kind.CALL:
                self._parts.append(ToolCallDelta(self._num_calls, "", f"call_{os.urandom(12).hex()}", piece.text))
                self._num_calls += 1
            elif piece.kind is Kind.ARGUMENTS:
                self._parts.append(ToolCallDelta(self._num_calls - 1, piece.text))
            else:
                self._parts.append(piece)


def _rank(part: Piece | ToolCallDelta) -> int:
    """Its place in a delta."""
    return 2 if isinstance(part, ToolCallDelta) else int(part.kind is Kind.TEXT)


def _calls(parts: list[Piece | ToolCallDelta]) -> list[ToolCallDelta]:
    return [part for part in parts if isinstance(part, ToolCallDelta)]


def _joined(parts: list[Piece | ToolCallDelta], kind: Kind) -> str:
    return "".join(part.text for part in parts if isinstance(part, Piece) and part.kind is kind)
