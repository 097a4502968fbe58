"""A tokenizer is built while the engine starts: whichever fails, its own error comes out and nothing stays behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from openherd.checkpoints import open_checkpoint
from openherd.engine.engine import Engine
from openherd.errors import EngineError, FormatError
from openherd.llm import loading
from openherd.llm.meanwhile import meanwhile
from openherd.options import EngineOptions
from tests.unit.llm.tiny_file import write_model

OPTIONS = EngineOptions(threads=1)


def test_meanwhile_gives_the_result_or_raises_what_was_raised() -> None:
    assert meanwhile(lambda: 7)() == 7
    result = meanwhile(lambda: 1 // 0)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            result()


def test_a_refused_tokenizer_closes_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(spec: object) -> Any:
        raise FormatError("no tokenizer")

    started: list[Engine] = []
    start = loading._start
    monkeypatch.setattr(loading, "_start", lambda *given: started.append(start(*given)) or started[0])
    monkeypatch.setattr(loading, "Tokenizer", refuse)
    with pytest.raises(FormatError, match="no tokenizer"):
        loading._build(open_checkpoint(write_model(tmp_path / "tiny.gguf")), OPTIONS)
    with pytest.raises(EngineError, match="closed"):
        started[0].step()


def test_an_engine_that_does_not_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: object) -> Any:
        raise EngineError("no engine")

    monkeypatch.setattr(loading, "_start", refuse)
    checkpoint = open_checkpoint(write_model(tmp_path / "tiny.gguf"))
    with pytest.raises(EngineError, match="no engine"):
        loading._build(checkpoint, OPTIONS)
    monkeypatch.setattr(loading, "Tokenizer", lambda spec: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        loading._build(checkpoint, OPTIONS)
