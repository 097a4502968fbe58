"""The models that are here: one folder each, with a small record of where its files came from."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from openherd.errors import HerdError
from openherd.store.home import models_folder

RECORD = "record.json"
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of a fetched model, as it was verified. `path` is its name in the hub's repository, "" where not known."""

    name: str
    size: int
    sha256: str
    path: str = ""


@dataclass(frozen=True, slots=True)
class HubOrigin:
    """Where in a hub a model came from. `asked` is the branch, tag or commit that was named, `commit` what it was.

    `also_asked` are others that turned out to be this commit, `also_named` other names that led to the repository.
    """

    repository: str
    variant: str
    asked: str
    commit: str
    files: tuple[StoredFile, ...]
    also_asked: tuple[str, ...] = ()
    also_named: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of a fetched model; written when its files have been verified.

    `file` is the one that the model is opened by, "" where that is the folder; `size` is that of all its files,
    `sha256` that of `file` ("" for a folder, whose files have theirs in `hub`).
    """

    name: str
    file: str
    size: int
    sha256: str
    licence: str
    source: str
    fetched: str  # UTC, ISO 8601
    hub: HubOrigin | None = None

    @property
    def files(self) -> tuple[StoredFile, ...]:
        return self.hub.files if self.hub else (StoredFile(self.file, self.size, self.sha256),)


@dataclass(frozen=True, slots=True)
class LocalModel:
    """`path` is what the engine opens: a file, or the folder itself."""

    record: Record
    folder: Path

    @property
    def path(self) -> Path:
        return self.folder / self.record.file


def folder_of(name: str) -> Path:
    return models_folder() / name


def local_model(name: str) -> LocalModel | None:
    """The model in the folder `name`, None when it is not here or not whole (no readable record, or another size)."""
    folder = folder_of(name)
    try:
        record = _record(json.loads((folder / RECORD).read_text(encoding="utf-8")))
        whole = (record.hub is not None or record.name == name) and all(
            (folder / file.name).parent == folder and (folder / file.name).stat().st_size == file.size
            for file in record.files
        )
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    return LocalModel(record, folder) if whole else None


def local_models() -> list[LocalModel]:
    """Every whole model, by folder."""
    folder = models_folder()
    names = sorted(child.name for child in folder.iterdir() if child.is_dir()) if folder.is_dir() else []
    return [model for name in names if not name.startswith(".") and (model := local_model(name))]


def write_record(folder: Path, record: Record) -> None:
    """In one step: a model that has a record is never without one."""
    new = folder / f"{RECORD}.new"
    with new.open("w", encoding="utf-8") as file:
        json.dump(asdict(record), file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    new.replace(folder / RECORD)


def rename_over(staging: Path, target: Path) -> None:
    """Move a folder into place; one that stands there is not a whole model (see `local_model`) and goes.

    Of a symbolic link only the link goes: what it points to may be anything.
    """
    if target.is_symlink():
        target.unlink()
    elif target.exists():
        shutil.rmtree(target)
    staging.rename(target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def remove_model(model: LocalModel) -> None:
    """Raises HerdError of the disk."""
    try:
        # The record goes first: a folder without one is not a model, whatever interrupts the rest.
        (model.folder / RECORD).unlink()
        if model.folder.is_symlink():
            _remove_linked(model)
        else:
            shutil.rmtree(model.folder)
    except OSError as error:
        raise HerdError(f"cannot remove {model.folder}: {error.strerror or error}") from error


def _remove_linked(model: LocalModel) -> None:
    """The model's files where a person has put them, then the link; what else lies there stays."""
    elsewhere = model.folder.resolve()
    for file in model.record.files:
        (elsewhere / Path(file.name).name).unlink(missing_ok=True)  # a name that leads out of the folder is nobody's
    with suppress(OSError):  # not empty
        elsewhere.rmdir()
    model.folder.unlink()


def _record(values: Any) -> Record:
    """Raises TypeError, KeyError, ValueError for what no openherd wrote."""
    if not isinstance(values, dict):
        raise TypeError("not an object")
    hub = values.get("hub")
    if hub is not None:
        files = tuple(_made(StoredFile, file) for file in hub["files"])
        others = {key: _texts(hub[key]) for key in ("also_asked", "also_named") if key in hub}
        hub = _made(HubOrigin, {**hub, "files": files, **others})
        main = values["file"]
        if not files or (main and main not in {file.name for file in files}):
            raise ValueError("a model without its files")
    return _made(Record, {**values, "hub": hub})


def _made(kind: type[_T], values: Any) -> _T:
    """Raises TypeError for fields that are missing, unknown, or of another type than `kind` says."""
    made = kind(**values)
    for field in fields(made):  # type: ignore[arg-type]
        expected = {"str": str, "int": int}.get(str(field.type), object)
        if not isinstance(getattr(made, field.name), expected):
            raise TypeError(f"{field.name} is not of type {field.type}")
    return made


def _texts(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise TypeError("not a list of texts")
    return tuple(values)
