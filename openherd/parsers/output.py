"""An answer's text as reasoning, text and tool calls."""

from __future__ import annotations

from collections.abc import Iterator, Set

from openherd.parsers.formats import ModelFormat
from openherd.parsers.pieces import Kind, Piece
from openherd.parsers.reasoning import ReasoningParser
from openherd.parsers.result_marks import ResultMarks
from openherd.parsers.tool_calls import ToolCallParser


class OutputParser:
    """Reads one answer in pieces of any size. Immutable settings, one use."""

    def __init__(
        self,
        form: ModelFormat,
        names: Set[str] = frozenset(),
        *,
        is_held: bool = False,
        is_thinking: bool = False,
        has_tools: bool = False,
    ) -> None:
        """`names`: the functions that are offered; none: no call is looked for. `is_held`: the answer is held to a
        grammar of calls. `is_thinking`: the prompt ends inside a thinking section. `has_tools`: the prompt speaks of
        functions or of their results, whose marks are then left out of the text."""
        self._reasoning = ReasoningParser(is_open=is_thinking) if form.thinks else None
        self._calls = ToolCallParser(form.tools, names, is_held=is_held) if names else None
        self._marks = ResultMarks(form.tools.result_marks if has_tools else ())

    @property
    def num_held(self) -> int:
        """Characters that were read and whose part is not yet known."""
        return sum(stage.num_held for stage in (self._reasoning, self._calls, self._marks) if stage is not None)

    @property
    def reasoning_end(self) -> int | None:
        """Characters up to the end of the thinking section; None inside of it, 0 where there is none."""
        return self._reasoning.end if self._reasoning else 0

    def add(self, text: str) -> list[Piece]:
        """What became certain with this text."""
        first = self._reasoning.add(text) if self._reasoning else (Piece(Kind.TEXT, text),)
        return [piece for found in first for piece in self._second(found)]

    def finish(self) -> list[Piece]:
        """What was held back, now that nothing follows."""
        pieces = (
            [piece for found in self._reasoning.finish() for piece in self._second(found)] if self._reasoning else []
        )
        for piece in self._calls.finish() if self._calls else ():
            pieces += self._third(piece)
        if held := self._marks.flush():
            pieces.append(Piece(Kind.TEXT, held))
        return pieces

    def _second(self, piece: Piece) -> Iterator[Piece]:
        if piece.kind is Kind.TEXT and self._calls is not None:
            for found in self._calls.add(piece.text):
                yield from self._third(found)
        elif piece.text:
            yield from self._third(piece)

    def _third(self, piece: Piece) -> Iterator[Piece]:
        text = self._marks.add(piece.text) if piece.kind is Kind.TEXT else self._marks.flush()
        if text:
            yield Piece(Kind.TEXT, text)
        if piece.kind is not Kind.TEXT:
            yield piece
