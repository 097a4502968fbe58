"""herd train: what a person types, sees, and is told."""

from __future__ import annotations

import json
from pathlib import Path

from tests.unit.cli.conftest import Herd


def chats(folder: Path) -> Path:
    path = folder / "chats.jsonl"
    path.write_text('{"prompt": "hello", "completion": " wor"}\n{"prompt": "hello", "completion": " wor", "id": 1}\n')
    return path


def test_prepare_reports_as_a_table_and_as_a_document(herd: Herd, tiny_model: Path, tmp_path: Path) -> None:
    result = herd("train", "prepare", chats(tmp_path), "--out", tmp_path / "a", "--model", tiny_model)
    assert result.status == 0, result.err
    for part in ("2 documents", "duplicate: 1 row, first", "keys that take no part: id"):
        assert part in result.out
    command = ("train", "prepare", chats(tmp_path), "--out", tmp_path / "b", "--model", tiny_model, "--json")
    document = json.loads(herd(*command).out)
    assert (document["documents"], document["kind"], document["refused_rows"]) == (2, "documents", 0)
    assert document["findings"][0]["what"] == "duplicate"


def test_preview_marks_what_is_learnt(herd: Herd, tiny_model: Path, tmp_path: Path) -> None:
    result = herd("train", "preview", chats(tmp_path), "--model", tiny_model, "--rows", "1")
    assert "hello⟦ wor" in result.out
    page = tmp_path / "page.html"
    assert herd("train", "preview", chats(tmp_path), "--model", tiny_model, "--html", page).out.strip() == str(page)
    assert 'class="learnt"' in page.read_text()
    line = herd("train", "preview", chats(tmp_path), "--model", tiny_model, "--rows", "1", "--json").out
    (row,) = json.loads(line)["rows"]
    assert len(row["token_ids"]) == len(row["learnt"])
    again = herd("train", "preview", chats(tmp_path), "--model", tiny_model, "--html", page)
    assert (again.status, "exists already" in again.err) == (2, True)


def test_refusals_name_the_flag_or_the_line(herd: Herd, tiny_model: Path, tmp_path: Path) -> None:
    data, out = chats(tmp_path), tmp_path / "out"
    for arguments, message in (
        (("prepare", data, "--out", out, "--rename", "x"), "--rename is THEIRS=OURS, not 'x'"),
        (("prepare", data, "--out", out, "--weight", "1", "--weight", "2"), "--weight must be given once for each"),
        (("prepare", data, "--out", out, "--weight", "0"), "--weight must be greater than 0"),
        (("preview", data, "--rows", "0"), "--rows must be at least 1"),
        (("prepare", tmp_path / "none.jsonl", "--out", out), "does not exist"),
        (("prepare", data), "--out"),
        (("tokenizer", data, "--out", out, "--vocab-size", "7"), "--vocab-size must be from"),
    ):
        result = herd("train", *arguments, *(["--model", tiny_model] if arguments[0] != "tokenizer" else []))
        assert (result.status, message in result.err) == (2, True), result.err
        assert not out.exists()
