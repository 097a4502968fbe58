"""Records that no openherd wrote: such a folder is no model, and hides no other."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from openherd.store.home import models_folder
from openherd.store.hub_local import hub_models
from openherd.store.local import local_model, local_models
from openherd.store.resolve import resolve
from tests.unit.store.hub_models import REPOSITORY, tiny_gguf
from tests.unit.store.stand_in_hub import StandInHub
from tests.unit.store.test_hub_pull import fetch


def _set(*keys: str | int, value: Any) -> Callable[[Any], Any]:
    def change(record: Any) -> Any:
        *path, last = keys
        inner = record
        for key in path:
            inner = inner[key]
        inner[last] = value
        return record

    return change


@pytest.mark.parametrize(
    "change",
    [
        *(lambda _, value=value: value for value in ([], "x", 3, None)),
        *(_set(key, value=value) for key in ("name", "file", "sha256", "licence", "source", "fetched")
          for value in (3, None, ["x"])),
        _set("size", value="3"), _set("hub", value=[]), _set("hub", value="x"), _set("hub", value={}),
        *(_set("hub", key, value=value) for key in ("repository", "variant", "asked", "commit", "files")
          for value in (3, None, {})),
        *(_set("hub", key, value=value) for key in ("also_asked", "also_named") for value in (3, None, [3], "x")),
        *(_set("hub", "files", 0, key, value=value) for key in ("name", "size", "sha256", "path")
          for value in (None, [], 1.5)),
        _set("unknown", value=1),
    ],
)  # fmt: skip
def test_a_record_of_another_shape_is_skipped(hub: StandInHub, change: Callable[[Any], Any]) -> None:
    hub.add(REPOSITORY, {"tiny-Q4_0.gguf": tiny_gguf(1 << 12)})
    hub.add("o/other", {"tiny-Q4_0.gguf": tiny_gguf(1 << 12)})
    sound, broken = fetch(), fetch("hf:o/other")
    path = broken.folder / "record.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    assert local_model(broken.folder.name) is None
    assert local_models() == hub_models() == [sound]
    assert resolve(f"hf:{REPOSITORY}") == sound.path
    assert models_folder() in broken.folder.parents
    assert fetch("hf:o/other").path == broken.path, "it is fetched anew"
