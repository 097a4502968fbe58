"""The parts of an answer stand in one order, wherever its text was cut into steps."""

from __future__ import annotations

import pytest

from openherd.llm.parsed_text import ParsedText
from openherd.parsers import HERMES, ModelFormat, OutputParser

CALL = '<tool_call>\n{{"name": "f", "arguments": {{"a": {}}}}}\n</tool_call>'
TEXT = f"<think>\nHm.\n</think>\nHi {CALL.format(1)}\nbye {CALL.format(2)}\n{CALL.format(3)} end"
PARTS = [
    ("reasoning", "Hm."),
    ("text", "Hi"),
    ("f", '{"a": 1}'),
    ("text", "bye"),
    ("f", '{"a": 2}'),
    ("f", '{"a": 3}'),
    ("text", "end"),
]


def parts(width: int, *, is_held: bool) -> list[tuple[str, str]]:
    """Of deltas as a reader joins them: each is reasoning, then text, then calls."""
    parsed = ParsedText(OutputParser(ModelFormat(HERMES, is_native=True, thinks=True), {"f"}, is_held=is_held))
    found: list[tuple[str, str]] = []

    def grow(kind: str, piece: str) -> None:
        if found and found[-1][0] == kind != "f":
            found[-1] = kind, found[-1][1] + piece
        elif piece:
            found.append((kind, piece))

    def take() -> None:
        while any(taken := parsed.take()):
            text, reasoning, calls = taken
            grow("reasoning", reasoning)
            grow("text", text)
            for call in calls:
                if call.id is not None:
                    found.append((call.name or "", ""))
                assert found[-1][0] == "f", "arguments go on where they were begun"
                found[-1] = "f", found[-1][1] + call.arguments

    for start in range(0, len(TEXT), width):
        parsed.add(TEXT[start : start + width])
        take()
    parsed.finish()
    take()
    assert [(call.name, call.arguments) for call in parsed.tool_calls] == [part for part in found if part[0] == "f"]
    assert parsed.text == "".join(piece for kind, piece in found if kind == "text")
    return found


@pytest.mark.parametrize("is_held", [True, False])
@pytest.mark.parametrize("width", [1, 2, 7, 30, 90, len(TEXT)])
def test_where_steps_are_cut_changes_no_order(width: int, is_held: bool) -> None:
    assert parts(width, is_held=is_held) == PARTS
