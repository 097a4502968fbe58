"""What the verbs that write may replace, and what they may not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.parity.reader_cases import FOLDER
from tests.unit.cli.conftest import Herd

QUANTIZE = ("--type", "Q8_0", "--no-evaluate", "--no-golden", "--overwrite")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "src"
    folder.mkdir()
    for file in (FOLDER / "llama3-hf").iterdir():
        if file.is_file():
            (folder / file.name).write_bytes(file.read_bytes())
    return folder


def test_quantize_replaces_no_file_of_its_source(herd: Herd, source: Path) -> None:
    before = (source / "config.json").read_bytes()
    result = herd("quantize", source, source / "config.json", *QUANTIZE)
    assert (result.status, "is the source itself" in result.err) == (2, True), result.err
    assert (source / "config.json").read_bytes() == before


def test_quantize_replaces_no_pipe(herd: Herd, source: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    result = herd("quantize", source, tmp_path / "pipe", *QUANTIZE)
    assert (result.status, "is not a regular file" in result.err) == (2, True), result.err


def test_a_link_planted_under_the_partial_name_is_not_followed(herd: Herd, source: Path, tmp_path: Path) -> None:
    """Someone else's link in a shared folder would choose what is overwritten."""
    precious = tmp_path / "precious"
    precious.write_text("precious")
    (tmp_path / ".x.gguf.partial").symlink_to(precious)
    result = herd("convert", source, tmp_path / "x.gguf", "--no-golden")
    assert result.status == 2, result.err
    assert precious.read_text() == "precious"
    assert not (tmp_path / "x.gguf").exists()
