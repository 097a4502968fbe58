"""Verbs on folders: Hugging Face's layout and Meta's run as files do, and what was assumed is said."""

from __future__ import annotations

import json

import pytest

from openherd.cli import main
from tests.parity.reader_cases import FOLDER, MODELS


@pytest.mark.parametrize("name", MODELS)
def test_inspect(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(FOLDER / name), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["unsupported"], facts["config"]["vocab_size"], facts["tokenizer"]["vocab_size"]) == (None, 400, 400)
    assert [len(facts["assumed"]) > 0] == ["meta" in name]
    assert main(["inspect", str(FOLDER / name), "--tensors"]) == 0
    printed = capsys.readouterr().out
    assert ("assumed" in printed) == ("meta" in name)
    assert all(tensor["canonical"] for tensor in facts["tensors"])


@pytest.mark.parametrize("name", ["llama3-hf", "llama2-hf-bin", "llama1-meta-2"])
def test_run(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["run", str(FOLDER / name), "-p", "All human beings", "--max-tokens", "4", "--json", "--context", "64"]
    assert main(arguments) == 0
    captured = capsys.readouterr()
    answer = json.loads(captured.out)
    assert answer["completion_tokens"] <= 4
    assert ("herd: assumed: read as Llama 1" in captured.err) == name.startswith("llama1")


def test_a_built_in_template_is_named_where_it_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(FOLDER / "llama2-meta")
    asked = ["run", folder, "--chat", "-p", "hi", "--max-tokens", "2", "--json", "--context", "64"]
    assert main(asked) == 0
    assert "assumed: chat template built in: llama-2, the format of Llama 2's chat models" in capsys.readouterr().err
    assert main([*asked, "--template", "chatml"]) == 0
    assert "chat template" not in capsys.readouterr().err


def test_a_model_that_never_had_a_chat_format(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(FOLDER / "llama1-meta"), "--chat", "-p", "hi"]) == 2
    assert "no chat template" in capsys.readouterr().err
