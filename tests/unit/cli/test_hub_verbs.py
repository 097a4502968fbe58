"""pull, models, rm and the other verbs with models of a hub, from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from openherd.cli.app import main
from openherd.store.hub_catalogue import HUB_CATALOGUE, HubEntry
from tests.unit.store.hub_models import REPOSITORY, safetensors_files, tiny_gguf
from tests.unit.store.stand_in_hub import StandInHub, commit_of


@pytest.fixture(autouse=True)
def _with_a_model(hub: StandInHub) -> None:
    hub.add(REPOSITORY, {"tiny-Q4_0.gguf": tiny_gguf()})


def document(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_pull_models_run_rm(hub: StandInHub, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pull", f"hf:{REPOSITORY}", "--json"]) == 0
    pulled = document(capsys)
    assert pulled["name"] == f"hf:{REPOSITORY}:Q4_0"
    assert pulled["record"]["hub"]["commit"] == commit_of(REPOSITORY)
    assert main(["models", "--json"]) == 0
    row = document(capsys)["models"][-1]
    assert row["name"] == f"hf:{REPOSITORY}:Q4_0@{commit_of(REPOSITORY)[:12]}"
    assert row["path"] == pulled["path"]
    assert main(["inspect", f"hf:{REPOSITORY}", "--json"]) == 0
    assert document(capsys)["path"] == pulled["path"]
    assert main(["models"]) == 0
    assert f"(commit {commit_of(REPOSITORY)[:12]})" in capsys.readouterr().out
    assert main(["rm", row["name"], "--json"]) == 0
    assert document(capsys)["removed"] == pulled["path"]
    assert not Path(pulled["path"]).parent.exists()


def test_a_short_name_of_the_catalogue(
    hub: StandInHub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = HubEntry("tiny", "Tiny", "MIT", 10**9, f"hf:{REPOSITORY}:Q4_0")
    monkeypatch.setitem(HUB_CATALOGUE, "tiny", entry)
    assert main(["models"]) == 0
    assert f"herd pull tiny fetches it from hf:{REPOSITORY}:Q4_0" in capsys.readouterr().out
    assert main(["inspect", "tiny"]) == 2
    assert "try: herd pull tiny" in capsys.readouterr().err
    assert main(["pull", "tiny"]) == 0
    path = capsys.readouterr().out.strip()
    assert main(["models", "--json"]) == 0
    rows = {row["name"]: row for row in document(capsys)["models"]}
    assert rows["tiny"]["path"] == path
    assert rows["tiny"]["licence"] == "apache-2.0", "what the hub says of it"
    assert len(rows) == len(HUB_CATALOGUE) + 1
    assert main(["rm", "tiny"]) == 0
    assert not Path(path).exists()


def test_a_folder_of_safetensors(hub: StandInHub, capsys: pytest.CaptureFixture[str]) -> None:
    hub.add("o/folder", safetensors_files())
    assert main(["pull", "hf:o/folder"]) == 0
    printed = capsys.readouterr()
    folder = Path(printed.out.strip())
    assert folder.is_dir()
    assert "KV cache for 2,048 tokens" in printed.err
    assert main(["rm", "hf:o/folder:safetensors"]) == 0
    assert not folder.exists()


def test_a_safetensors_repository_is_pulled_and_run(hub: StandInHub, capsys: pytest.CaptureFixture[str]) -> None:
    """Shards, tokenizer and template as transformers saves them; the same answer as from the folder itself."""
    from tests.parity.reader_cases import FOLDER

    source = FOLDER / "llama3-hf"
    hub.add("o/llama", {file.name: file.read_bytes() for file in source.iterdir()})
    assert main(["pull", "hf:o/llama", "--context", "64", "--json"]) == 0
    pulled = Path(document(capsys)["path"])
    assert pulled != source
    options = ["--temperature", "0", "--max-tokens", "5", "--context", "64", "--threads", "1", "--offline", "--json"]
    answers = []
    for prompt in (["-p", "All human beings"], ["-p", "All human beings", "--chat"]):
        for model in ("hf:o/llama", str(pulled), str(source)):
            assert main(["run", model, *prompt, *options]) == 0
            answers.append(document(capsys))
    fetched, by_path, there = ([answer["token_ids"] for answer in answers[i::3]] for i in range(3))
    assert fetched == by_path == there
    assert all(fetched), "something was answered"
    assert fetched[0] != fetched[1], "the template was applied"


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["pull", "hf:x"], 2, "no ORG/REPO follows hf:"),
        (["pull", "hf:no/such"], 2, "has no repository no/such"),
        (["pull", f"hf:{REPOSITORY}:Q9"], 2, "it has: Q4_0"),
        (["pull", f"hf:{REPOSITORY}", "--context", "999999999"], 2, "--context must be from 1 to"),
        (["pull", f"hf:{REPOSITORY}", "--offline"], 1, "--offline forbids"),
        (["pull", "qwen3-0.6"], 2, "did you mean qwen3-0.6b"),
        (["rm", "hf:no/such"], 2, "no fetched model is called 'hf:no/such'"),
        (["run", "hf:no/such", "-p", "x"], 2, "try: herd pull hf:no/such"),
    ],
)
def test_errors(
    hub: StandInHub, capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, said: str
) -> None:
    assert main(arguments) == status
    printed = capsys.readouterr()
    assert said in printed.err
    assert "defect" not in printed.err
    assert printed.out == ""
