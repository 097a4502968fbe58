"""herd score: the document, the chunks, and what cannot be scored."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from tests.unit.cli.conftest import Herd

ORACLE = ("--backend", "reference")
TEXT = "hello world, this is a text to be scored; it has some \u00e9\u00e8 in it\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


def test_document(herd: Herd, tiny_model: Path, file: Path) -> None:
    document = json.loads(herd("score", tiny_model, file, *ORACLE, "--json").out)
    assert document.keys() == {"tokens", "nll", "perplexity", "bits_per_byte", "token_ids", "logprobs"}
    assert document["tokens"] == len(document["token_ids"]) == len(document["logprobs"]) + 1
    assert document["nll"] == pytest.approx(-sum(document["logprobs"]) / len(document["logprobs"]))
    assert document["perplexity"] == pytest.approx(math.exp(document["nll"]))


def test_chunks(herd: Herd, tiny_model: Path, file: Path) -> None:
    document = json.loads(herd("score", tiny_model, file, *ORACLE, "--context", "16", "--json").out)
    num_chunks = -(-document["tokens"] // 16)
    assert num_chunks > 2
    assert len(document["logprobs"]) == document["tokens"] - num_chunks
    first = json.loads(herd("score", tiny_model, file, *ORACLE, "--max-tokens", "16", "--json").out)
    assert first["logprobs"] == document["logprobs"][:15]


def test_standard_input_and_plain_output(herd: Herd, tiny_model: Path, file: Path) -> None:
    from_file = herd("score", tiny_model, file, *ORACLE)
    from_stdin = herd("score", tiny_model, "-", *ORACLE, stdin=TEXT.encode())
    assert from_file.status == from_stdin.status == 0
    assert from_file.out == from_stdin.out
    assert "perplexity" in from_file.out
    assert "tokens in chunks of 512" in from_file.err


def test_special_tokens(herd: Herd, tiny_model: Path) -> None:
    text = b"hello<|end|>hello"
    as_control, as_text = (
        json.loads(herd("score", tiny_model, "-", *ORACLE, "--json", *more, stdin=text).out)
        for more in ((), ("--no-special",))
    )
    assert as_control["tokens"] == 3 < as_text["tokens"]


@pytest.mark.parametrize(
    ("data", "arguments", "words"),
    [
        (b"caf\xe9", [], "not UTF-8 text: byte 3 is 0xe9"),
        (b"", [], "at least two"),
        (b"hello", [], "at least two"),
        (b"hello world", ["--context", "0"], "context must be"),
        (b"hello world", ["--context", "1"], "--context must be from 2"),
        (b"hello world", ["--max-tokens", "1"], "--max-tokens"),
        (b"hello world", ["--contxt", "9"], "--context"),
    ],
)
def test_wrong_input(
    herd: Herd, tiny_model: Path, tmp_path: Path, data: bytes, arguments: list[str], words: str
) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(data)
    result = herd("score", tiny_model, path, *ORACLE, *arguments)
    assert (result.status, result.out) == (2, "")
    assert words in result.err
    assert len(result.err.splitlines()) <= 2


def test_file_that_is_missing(herd: Herd, tiny_model: Path, tmp_path: Path) -> None:
    result = herd("score", tiny_model, tmp_path / "none.txt", *ORACLE)
    assert result.status == 2
    assert "cannot read" in result.err
