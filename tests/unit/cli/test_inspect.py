"""herd inspect: a table for people and a document for programs, from the header alone."""

from __future__ import annotations

import json
from pathlib import Path

from tests.checkpoint_files import text
from tests.unit.cli.conftest import Herd
from tests.unit.llm.tiny_file import write_model


def test_table(herd: Herd, tiny_model: Path) -> None:
    result = herd("inspect", tiny_model)
    assert (result.status, result.err) == (0, "")
    for part in (str(tiny_model), "GGUF v3", "apache-2.0", "n_kv_heads", "ffn_dim", "F32", "characters"):
        assert part in result.out
    assert "blk.1.attn_q.weight" not in result.out
    assert "blk.1.attn_q.weight" in herd("inspect", tiny_model, "--tensors").out


def test_lines_are_neither_wrapped_nor_padded(herd: Herd, tmp_path: Path) -> None:
    folder = tmp_path / ("long name " * 12).strip()
    folder.mkdir()
    lines = herd("inspect", write_model(folder / "tiny.gguf"), "--tensors").out.splitlines()
    assert lines[0] == f"path             {folder / 'tiny.gguf'}"
    assert all(line == line.rstrip() for line in lines)
    assert [line.split()[0] for line in lines if line].count("family") == 1


def test_document(herd: Herd, tiny_model: Path) -> None:
    document = json.loads(herd("inspect", tiny_model, "--json").out)
    assert document["config"]["n_layers"] == 2
    assert document["parameters"] == sum(
        tensor["bytes"] // 4 for tensor in document["tensors"]
    )  # every tensor of this file is F32
    assert document["chat_template"]["characters"] > 0


def test_file_cannot_steer_the_terminal(herd: Herd, tmp_path: Path) -> None:
    from tests.checkpoint_files import tiny_llama

    file = tiny_llama()
    file.keys["general.name"] = text("\x1b]0;owned\x07\x1b[2Jname")
    path = tmp_path / "steering.gguf"
    path.write_bytes(file.build())
    out = herd("inspect", path).out
    assert "\x1b" not in out
    assert "owned" in out


def test_model_without_template(herd: Herd, tmp_path: Path) -> None:
    assert "chat template    none" in herd("inspect", write_model(tmp_path / "bare.gguf", template=None)).out


def test_what_is_no_model(herd: Herd, tmp_path: Path) -> None:
    words = tmp_path / "words.gguf"
    words.write_text("only words")
    for path in (words, tmp_path / "missing.gguf"):
        result = herd("inspect", path)
        assert (result.status, result.out) == (2, "")
        assert len(result.err.splitlines()) <= 2
