"""Transcripts keep every character, and a file from a stranger is a clear error or a conversation."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openherd.chat.transcript import load, save
from openherd.errors import FormatError, HerdError, InputError
from openherd.messages import Message

HEADER = '{"openherd": "transcript", "version": 1, "model": "m", "saved": "now"}\n'
USER = '{"role": "user", "content": "hi"}\n'
ASSISTANT = '{"role": "assistant", "content": "hello"}\n'
TALK = [Message("system", "brief"), Message("user", "hi\n\u2028\x1b[31m"), Message("assistant", "# yes\r\n😀")]


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    save(tmp_path / "t.jsonl", TALK, "m")
    assert load(tmp_path / "t.jsonl") == TALK
    assert [path.name for path in tmp_path.iterdir()] == ["t.jsonl"]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=6))
def test_any_text_survives(tmp_path_factory: pytest.TempPathFactory, contents: list[str]) -> None:
    talk = [Message(("user", "assistant")[i % 2], text) for i, text in enumerate(contents[: len(contents) // 2 * 2])]
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    save(path, talk, "m")
    assert load(path) == talk


def test_markdown_is_for_readers(tmp_path: Path) -> None:
    save(tmp_path / "t.md", TALK, "smollm2")
    text = (tmp_path / "t.md").read_text()
    assert text.startswith("# Conversation with smollm2\n")
    assert [line for line in text.splitlines() if line.startswith("## ")] == ["## System", "## You", "## Model"]


def test_what_is_for_readers_is_not_loaded(tmp_path: Path) -> None:
    save(tmp_path / "t.md", TALK, "m")
    with pytest.raises(InputError, match=r"t\.md is a transcript for readers; load the \.jsonl"):
        load(tmp_path / "t.md")


def test_a_suffix_that_says_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.jsonl.*or \.md"):
        save(tmp_path / "t.txt", TALK, "m")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(HerdError, match="cannot write"):
        save(tmp_path / "no" / "t.jsonl", TALK, "m")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "line 1"),
        ("{}\n", "not a transcript"),
        ('{"openherd": "transcript", "version": 2}\n', "not a transcript"),
        ("[]\n", "line 1"),
        ("[" * 100_000, "line 1"),
        (HEADER + "nonsense\n", "line 2: not a JSON object"),
        (HEADER + USER + '{"role": "assistant", "conte', "line 3"),
        (HEADER + USER, "line 2: the last message has no answer"),
        (HEADER + ASSISTANT, "line 2: the role must be system or user"),
        (HEADER + USER + USER, "line 3: the role must be assistant"),
        (HEADER + USER + ASSISTANT + '{"role": "system", "content": ""}', "line 4: the role must be user"),
        (HEADER + '{"role": "user", "content": 1}\n', "line 2: a message has exactly"),
        (HEADER + '{"role": "user", "content": "x", "extra": 1}\n', "line 2: a message has exactly"),
        (HEADER + '{"role": ["user"], "content": "x"}\n', "line 2: the role"),
    ],
)
def test_a_damaged_transcript_says_where(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(text)
    with pytest.raises(FormatError, match=why):
        load(path)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(HEADER.encode() + b"\xff")
    with pytest.raises(FormatError, match="not UTF-8"):
        load(path)
    with pytest.raises(InputError, match="cannot read"):
        load(tmp_path / "missing.jsonl")
    with pytest.raises(InputError, match="cannot read"):
        load(tmp_path)


def test_half_a_surrogate_pair_cannot_get_in(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(HEADER + json.dumps({"role": "user", "content": "\ud800"}) + "\n" + ASSISTANT)
    assert load(path)[0].content == "?"


@given(st.binary(max_size=400))
def test_any_bytes_are_a_conversation_or_a_user_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.jsonl"
    for prefix in (b"", HEADER.encode(), (HEADER + USER).encode()):
        path.write_bytes(prefix + data)
        with suppress(InputError):  # exit status 2; anything else is a defect
            load(path)
