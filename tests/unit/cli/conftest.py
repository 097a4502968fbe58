"""What the tests of verbs share: a small model on disk, and `herd` called in this process."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from openherd.cli import main
from tests.unit.llm.tiny_file import write_model


@dataclass(frozen=True)
class Result:
    status: int
    out: str
    err: str


Herd = Callable[..., Result]


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "tiny.gguf")


@pytest.fixture
def herd(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Herd:
    """Run `herd` with these arguments and this standard input."""

    def run(*arguments: object, stdin: bytes = b"") -> Result:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        status = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Result(status, captured.out, captured.err)

    return run
