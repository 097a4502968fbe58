"""Taking away: exactly what was named, wherever it lies."""

from __future__ import annotations

from pathlib import Path

import pytest

from openherd.errors import ModelNotFoundError
from openherd.store.home import fetching_folder
from openherd.store.local import local_models
from openherd.store.removal import remove, unfinished
from tests.unit.store.hub_models import REPOSITORY, safetensors_files, tiny_gguf
from tests.unit.store.stand_in_hub import StandInHub
from tests.unit.store.test_hub_faults import interrupting_at
from tests.unit.store.test_hub_pull import fetch


def interrupted(reference: str) -> Path:
    """The folder of a download that ended early."""
    before = {one.path for one in unfinished()}
    with pytest.raises(KeyboardInterrupt):
        fetch(reference, progress=interrupting_at(1_060_000))
    (new,) = {one.path for one in unfinished()} - before
    return new


def test_an_unfinished_download_is_removed_by_its_own_name_alone(hub: StandInHub) -> None:
    names = ["Q4_K", "Q4_K_M", "x/model.gguf", "x-model.gguf"]
    paths = [name if "/" in name or "." in name else f"tiny.{name}.gguf" for name in names]
    hub.add(REPOSITORY, {path: tiny_gguf(seed=path) for path in paths})
    left = interrupted(f"hf:{REPOSITORY}:Q4_K_M")
    with pytest.raises(ModelNotFoundError, match="no fetched model is called"):
        remove(f"hf:{REPOSITORY}:Q4_K")
    assert [one.path for one in unfinished()] == [left]
    for name in ("Q4_K", "x/model.gguf", "x-model.gguf"):
        interrupted(f"hf:{REPOSITORY}:{name}")
    for name in names:
        count = len(unfinished())
        assert remove(f"hf:{REPOSITORY}:{name.lower()}").size > 0
        assert len(unfinished()) == count - 1


def test_of_several_unfinished_downloads_none_is_removed_unnamed(hub: StandInHub) -> None:
    hub.add(REPOSITORY, {path: tiny_gguf(seed=path) for path in ("tiny.Q4_K_M.gguf", "x/model.gguf")})
    folders = [interrupted(f"hf:{REPOSITORY}:{select}") for select in ("Q4_K_M", "x/model.gguf")]
    with pytest.raises(ModelNotFoundError, match=r"may mean 2 unfinished downloads: .*q4_k_m") as caught:
        remove(f"hf:{REPOSITORY}")
    assert sorted(one.path for one in unfinished()) == sorted(folders)
    assert caught.value.exit_status == 2
    for name in str(caught.value).partition("downloads: ")[2].splitlines()[0].split(", "):
        remove(name)
    assert list(fetching_folder().iterdir()) == []


def moved_elsewhere(folder: Path, elsewhere: Path) -> None:
    """As a person does who has a larger disk."""
    folder.rename(elsewhere)
    folder.symlink_to(elsewhere)


def test_a_model_that_was_moved_and_linked_is_removed_whole(hub: StandInHub, tmp_path: Path) -> None:
    hub.add(REPOSITORY, safetensors_files())
    for beside in ([], ["notes.txt"]):
        folder, elsewhere = fetch().folder, tmp_path / "large disk"
        moved_elsewhere(folder, elsewhere)
        for name in beside:
            (elsewhere / name).touch()
        remove(f"hf:{REPOSITORY}")
        assert not folder.is_symlink()
        assert local_models() == []
        assert [path.name for path in elsewhere.iterdir()] == beside if beside else not elsewhere.exists()


def test_a_model_that_was_moved_and_linked_is_repaired(hub: StandInHub, tmp_path: Path) -> None:
    files = hub.add(REPOSITORY, safetensors_files()).files
    folder, elsewhere = fetch().folder, tmp_path / "large disk"
    moved_elsewhere(folder, elsewhere)
    (elsewhere / "config.json").write_bytes(bytes(len(files["config.json"])))
    assert (fetch(verify=True).path / "config.json").read_bytes() == files["config.json"]
    assert not elsewhere.exists()


@pytest.mark.parametrize("is_there", [False, True])
def test_a_link_that_holds_no_model_gives_way_and_what_it_points_to_stays(
    hub: StandInHub, tmp_path: Path, is_there: bool
) -> None:
    content = hub.add(REPOSITORY, {"tiny.Q4_K_M.gguf": tiny_gguf(1 << 12)}).files["tiny.Q4_K_M.gguf"]
    folder, elsewhere = fetch().folder, tmp_path / "elsewhere"
    remove(f"hf:{REPOSITORY}")
    folder.symlink_to(elsewhere)
    if is_there:
        elsewhere.mkdir()
        (elsewhere / "notes.txt").touch()
    assert fetch().path.read_bytes() == content
    assert not folder.is_symlink()
    assert not is_there or (elsewhere / "notes.txt").exists()
