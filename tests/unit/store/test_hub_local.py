"""Which model that is here is meant by what a person writes, and what never stands in for another."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from openherd.errors import DownloadError, ModelNotFoundError
from openherd.store.home import models_folder
from openherd.store.hub_local import find_hub_model
from openherd.store.hub_reference import parse_hub_reference
from openherd.store.local import LocalModel, local_models
from openherd.store.removal import remove
from openherd.store.resolve import resolve
from tests.unit.store.hub_models import tiny_gguf
from tests.unit.store.stand_in_hub import StandInHub, commit_of
from tests.unit.store.test_hub_pull import fetch

SMALL = 1 << 12


def gguf(seed: str) -> bytes:
    return tiny_gguf(SMALL, seed)


def as_older(local: LocalModel, folder: str | None = None) -> Path:
    """What an openherd before this one would have left of it: fewer fields, and perhaps another folder's name."""
    record = json.loads((local.folder / "record.json").read_text())
    for key in ("also_asked", "also_named"):
        record["hub"].pop(key, None)
    for file in record["hub"]["files"]:
        file.pop("path", None)
    (local.folder / "record.json").write_text(json.dumps(record))
    return local.folder.rename(models_folder() / folder) if folder else local.folder


@pytest.mark.parametrize(
    ("paths", "selects"),
    [
        (("q4/model.gguf", "q8/model.gguf"), ("q4/model.gguf", "q8/model.gguf")),
        (("q8/model.gguf", "model.gguf"), ("q8/model.gguf", "model.gguf")),
        (("z.UD-Q4_K_M.gguf", "z.Q4_K_M.gguf"), ("UD-Q4_K_M", "Q4_K_M")),
        (("x/model.gguf", "x-model.gguf"), ("x/model.gguf", "x-model.gguf")),
        (("Model.gguf", "model.gguf"), ("Model.gguf", "model.gguf")),
        ((f"{'a' * 90}.gguf", f"b{'a' * 90}.gguf"), (f"{'a' * 90}.gguf", f"b{'a' * 90}.gguf")),
    ],
)
@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("older", [False, True])
def test_each_model_is_fetched_and_found_by_its_own_name(
    hub: StandInHub, paths: tuple[str, ...], selects: tuple[str, ...], order: int, older: bool
) -> None:
    files = hub.add("org/d", {path: gguf(path) for path in paths}).files
    pairs = list(zip(paths, selects, strict=True))[::order]
    for path, select in pairs:
        local = fetch(f"hf:org/d:{select}")
        assert local.path.read_bytes() == files[path]
        if older:
            as_older(local)
    for path, select in pairs:
        assert resolve(f"hf:org/d:{select}").read_bytes() == files[path]
        assert fetch(f"hf:org/d:{select}", offline=True).path.read_bytes() == files[path]
    for path, select in pairs:
        removed = remove(f"hf:org/d:{select}")
        assert removed.path.name == path.rsplit("/", 1)[-1]
    assert local_models() == []


def test_a_near_name_is_enough_for_reading_alone(hub: StandInHub) -> None:
    hub.add("org/d", {"a/z.UD-Q4_K_M.gguf": gguf("z"), "a/model.gguf": gguf("m")})
    dynamic, plain = fetch("hf:org/d:Q4_K_M"), fetch("hf:org/d:model.gguf")
    assert dynamic.record.name == "hf:org/d:UD-Q4_K_M"
    for near in ("Q4_K_M", "A/z.ud-q4_k_m.gguf"):
        assert resolve(f"hf:org/d:{near}") == dynamic.path
    assert resolve("hf:org/d:model.gguf") == plain.path
    for near in ("Q4_K_M", "model.gguf"):
        assert fetch(f"hf:org/d:{near}").path in (dynamic.path, plain.path), "the hub says that no other is meant"
        with pytest.raises(DownloadError, match="--offline forbids"):
            fetch(f"hf:org/d:{near}", offline=True)
        with pytest.raises(ModelNotFoundError, match=r"no fetched model is called.*UD-Q4_K_M@"):
            remove(f"hf:org/d:{near}")
    for other in ("b/model.gguf", "b/z.UD-Q4_K_M.gguf"):
        with pytest.raises(ModelNotFoundError, match="not on this machine"):
            resolve(f"hf:org/d:{other}")
    fetch("hf:org/d:a/model.gguf")
    hub.repositories["org/d"].files["b/model.gguf"] = gguf("b")
    fetch("hf:org/d:b/model.gguf")
    with pytest.raises(ModelNotFoundError, match=r"may mean 2 models that are here: a/model\.gguf, b/model\.gguf"):
        resolve("hf:org/d:model.gguf")


def test_the_file_of_a_quantisation_that_an_older_openherd_fetched_is_found(hub: StandInHub) -> None:
    hub.add("org/d", {"a/z-Q4_0.gguf": gguf("z")})
    path = fetch("hf:org/d").path
    as_older(fetch("hf:org/d"))
    for select in ("Q4_0", "q4_0", "z-Q4_0.gguf", "a/z-Q4_0.gguf"):
        assert resolve(f"hf:org/d:{select}") == path
    assert fetch("hf:org/d:z-Q4_0.gguf", offline=True).path == path
    assert fetch("hf:org/d:a/z-Q4_0.gguf").path == path


def test_a_folder_that_an_older_openherd_named_stays_and_is_never_overwritten(hub: StandInHub) -> None:
    """It gave `x/model.gguf` and `x-model.gguf` one name."""
    files = hub.add("org/d", {"x/model.gguf": gguf("one"), "x-model.gguf": gguf("two")}).files
    older = as_older(fetch("hf:org/d:x/model.gguf"), f"hf--org--d--x-model.gguf--{commit_of('org/d')[:12]}")
    assert fetch("hf:org/d:x/model.gguf").folder == older
    assert fetch("hf:org/d@main:x/model.gguf").folder == older
    second = fetch("hf:org/d:x-model.gguf")
    assert second.path.read_bytes() == files["x-model.gguf"]
    assert fetch("hf:org/d:x-model.gguf") == second
    assert resolve("hf:org/d:x/model.gguf").read_bytes() == files["x/model.gguf"]
    (older / "model.gguf").write_bytes(bytes(len(files["x/model.gguf"])))
    assert fetch("hf:org/d:x/model.gguf", verify=True).path.read_bytes() == files["x/model.gguf"]
    assert fetch("hf:org/d:x-model.gguf", verify=True) == second
    assert len(local_models()) == 2


@pytest.mark.parametrize("first", ["hf:old-org/tiny", "hf:new-org/tiny"])
def test_a_renamed_repository_is_found_by_both_names(hub: StandInHub, first: str) -> None:
    hub.add("new-org/tiny", {"tiny.Q4_0.gguf": gguf("x")})
    hub.renamed["old-org/tiny"] = "new-org/tiny"
    local = fetch(first)
    assert fetch("hf:old-org/tiny").path == local.path
    for name in ("hf:old-org/tiny", "hf:Old-Org/tiny:q4_0", "hf:new-org/tiny"):
        assert resolve(name) == local.path
        assert fetch(name, offline=True).path == local.path
    local.path.write_bytes(bytes(local.record.size))
    fetch("hf:old-org/tiny", verify=True)
    assert resolve("hf:old-org/tiny") == local.path
    assert len(local_models()) == 1
    remove("hf:old-org/tiny")
    assert local_models() == []


def test_a_repository_renamed_after_it_was_fetched_is_not_fetched_again(hub: StandInHub) -> None:
    stored = hub.add("old-org/tiny", {"tiny.Q4_0.gguf": gguf("x")})
    local = fetch("hf:old-org/tiny")
    hub.repositories = {"new-org/tiny": stored}
    hub.renamed["old-org/tiny"] = "new-org/tiny"
    assert fetch("hf:old-org/tiny@main").path == local.path
    assert resolve("hf:new-org/tiny") == local.path


def test_every_revision_that_was_asked_for_names_its_commit(hub: StandInHub) -> None:
    stored = hub.add("org/t", {"tiny.Q4_0.gguf": gguf("x")})
    stored.branches |= {"v1.0": stored.commit, "v1.1": stored.commit}
    local = fetch("hf:org/t")
    as_older(local)
    hub.requests.clear()
    for revision in ("v1.0", "v1.1", "v1.0", "main"):
        assert fetch(f"hf:org/t@{revision}").path == local.path
    assert hub.fetches() == []
    model = find_hub_model(parse_hub_reference("hf:org/t"))
    assert model is not None
    assert model.record.hub is not None
    assert (model.record.hub.asked, model.record.hub.also_asked) == ("main", ("v1.0", "v1.1"))
    local.path.write_bytes(bytes(local.record.size))
    fetch("hf:org/t@v1.0", verify=True)
    local.path.write_bytes(bytes(local.record.size))
    fetch("hf:org/t", verify=True)
    for revision in ("v1.0", "v1.1", "main", stored.commit, stored.commit[:12]):
        assert resolve(f"hf:org/t@{revision}") == local.path
    assert [path.name for path in sorted(local.folder.iterdir())] == ["record.json", "tiny.Q4_0.gguf"]
    with pytest.raises(ModelNotFoundError):
        resolve("hf:org/t@v1.2")


def test_a_branch_that_moved_back_means_the_commit_that_it_is_at(hub: StandInHub) -> None:
    stored = hub.add("org/t", {"tiny.Q4_0.gguf": gguf("old")})
    old = fetch("hf:org/t@main")
    stored.branches["stable"] = stored.commit
    stored.commit, stored.files = commit_of("new"), {"tiny.Q4_0.gguf": gguf("new")}
    stored.branches["main"] = stored.commit
    new = fetch("hf:org/t@main")
    assert fetch("hf:org/t@stable").path == resolve("hf:org/t@stable") == old.path
    stored.branches["stable"] = commit_of("new")
    assert fetch("hf:org/t@stable").path == resolve("hf:org/t@stable") == new.path
    stored.branches |= {"main": commit_of("org/t"), "stable": commit_of("org/t")}
    for revision in ("main", "stable"):
        assert fetch(f"hf:org/t@{revision}").path == resolve(f"hf:org/t@{revision}") == old.path
    assert resolve("hf:org/t") == new.path, "the latest fetched"
