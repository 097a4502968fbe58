"""The data doctor finds what it says it finds, and says nothing of honest rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from openherd.messages import Message
from openherd.train.doctor import Doctor, personal_data
from openherd.train.rows import Conversation, Row, Text
from openherd.train.sources import LocatedRow


def findings(*rows: Row, evaluation: tuple[Path, ...] = ()) -> dict[str, list[str]]:
    doctor = Doctor(evaluation)
    for number, row in enumerate(rows, 1):
        doctor.look(LocatedRow(row, f"f:{number}"))
    return doctor.findings().places


def test_duplicates_whatever_their_spaces_and_case() -> None:
    assert findings(Text("Hello  World"), Text("hello world\n"), Text("hello worlds")) == {"duplicate": ["f:2"]}


def test_empty_answers() -> None:
    empty = Conversation((Message("user", "q"), Message("assistant", " \n")))
    assert findings(empty, Conversation((Message("user", "q"), Message("assistant", "a")))) == {"empty answer": ["f:1"]}


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("write to jo.do+x@mail.example.org", ["mail address"]),
        ("call +49 (30) 1234 5678 now", ["telephone number"]),
        ("card 4111 1111 1111 1111.", ["card number"]),
        ("card 4111 1111 1111 1112.", []),
        ("to DE89 3704 0044 0532 0130 00", ["bank account"]),
        ("to DE88 3704 0044 0532 0130 00", []),
        ("a @ b, 3.14159265358979, 2026-11-26, x@y, +1, 0000 0000 0000 0000, 1,234,567,890,123", []),
    ],
)
def test_personal_data_by_its_form(text: str, kinds: list[str]) -> None:
    assert personal_data(text) == kinds


def test_text_of_an_evaluation_set(tmp_path: Path) -> None:
    words = [f"w{n}" for n in range(40)]
    (tmp_path / "test.jsonl").write_text(json.dumps({"question": " ".join(words), "answer": {"deep": ["x"]}}))
    shared, near = " ".join(["Before,", *words[5:18], "after"]), " ".join(["before", *words[5:17], "after"])
    found = findings(Text(shared), Text(near), evaluation=(tmp_path,))
    assert found == {"overlap with an evaluation set": ["f:1"]}


def test_hostile_text_takes_linear_time() -> None:
    """Patterns with nested repetition are where a regular expression runs away."""
    for text in ("1 " * 50_000, "a@" * 50_000, "+1 " * 50_000, "AA11 " * 50_000, "a." * 50_000, "1" * 100_000):
        personal_data(text)
