"""The stand-in is true: the hub's own library understands it as it does the hub, and takes its errors for the same."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.store.hub_models import noise
from tests.unit.store.stand_in_hub import TOKEN, StandInHub, commit_of, git_name

FILES = {"large.gguf": noise(50_000), "config.json": b'{"a": 1}', "folder/other.txt": b"x"}


@pytest.fixture
def sound(hub: StandInHub) -> StandInHub:
    hub.add("org/sound", FILES)
    hub.add("org/gated", FILES, gated=True, accepted=False)
    hub.add("org/private", FILES, private=True)
    hub.renamed["org/old"] = "org/sound"
    return hub


def seen_by_the_library(hub: StandInHub, folder: Path, token: str | None) -> dict[str, Any]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    environment |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "hf"), "HF_HUB_DISABLE_TELEMETRY": "1"}
    environment |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"} | (
        {"HF_TOKEN": token} if token else {}
    )
    program = [sys.executable, str(Path(__file__).with_name("hub_library.py")), str(folder / "files")]
    done = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_the_hubs_library_sees_a_hub(sound: StandInHub, tmp_path: Path) -> None:
    seen = seen_by_the_library(sound, tmp_path, None)
    digest, commit = hashlib.sha256(FILES["large.gguf"]).hexdigest(), commit_of("org/sound")
    assert seen["commit"] == commit
    assert seen["licence"] == "apache-2.0"
    assert seen["gated"] is False
    assert seen["siblings"]["large.gguf"] == [50_000, git_name(FILES["large.gguf"]), digest]
    assert seen["siblings"]["config.json"] == [8, git_name(FILES["config.json"]), None]
    assert seen["large"] == [commit, digest, 50_000, f"{sound.storage_url}/repos/xx/{digest}"]
    assert seen["large_xet"] == hashlib.sha256(digest.encode()).hexdigest()
    assert seen["small"] == [commit, git_name(FILES["config.json"]), 8]
    assert seen["sizes"] == {name: len(content) for name, content in FILES.items()}
    assert seen["renamed"] == "org/sound"
    assert seen["missing_repository"] == seen["private_repository"] == "RepositoryNotFoundError"
    assert seen["missing_revision"] == "RevisionNotFoundError"
    assert seen["missing_file"] == "RemoteEntryNotFoundError"
    assert seen["gated_repository"] == "GatedRepoError"


def test_the_hubs_library_is_known_by_its_token(sound: StandInHub, tmp_path: Path) -> None:
    sound.repositories["org/gated"].accepted = True
    seen = seen_by_the_library(sound, tmp_path, TOKEN)
    assert seen["gated_repository"] == seen["private_repository"] == "none"
    assert seen["missing_repository"] == "RepositoryNotFoundError"
