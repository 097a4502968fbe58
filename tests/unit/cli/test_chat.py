"""herd chat through the command line: what a pipe is answered."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.cli.conftest import Herd
from tests.unit.llm.tiny_file import write_adapter

SMALL = ("--threads", "1", "--context", "256", "--max-tokens", "12")


def test_adapter(herd: Herd, tiny_model: Path, tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "tuned", seed=3)
    answers = []
    for given in ((), ("--adapter", f"mine={folder}"), ("--adapter", folder)):
        result = herd("chat", tiny_model, *SMALL, "--json", *given, stdin=b"hello world\n")
        assert result.status == 0, result.err
        answers.append(json.loads(result.out)["text"])
    plain, named, bare = answers
    assert named == bare != plain


@pytest.mark.parametrize("given", ["=x", "nowhere"])
def test_an_adapter_that_is_none_is_refused(herd: Herd, tiny_model: Path, given: str) -> None:
    result = herd("chat", tiny_model, *SMALL, "--adapter", given, stdin=b"hello\n")
    assert result.status == 2
    assert given in result.err
