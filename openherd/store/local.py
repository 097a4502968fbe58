"""The models that are here: one folder each, with a small record of where its files came from."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from openherd.errors import HerdError
from openherd.store.home import models_folder

RECORD = "record.json"


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of a fetched model, as it was verified."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class HubOrigin:
    """Where in a hub a model came from. `asked` is the branch, tag or commit that was named, `commit` what it was."""

    repository: str
    variant: str
    asked: str
    commit: str
    files: tuple[StoredFile, ...]


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of a fetched model; written once, when its files have been verified.

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
    with (folder / RECORD).open("w", encoding="utf-8") as file:
        json.dump(asdict(record), file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())


def rename_over(staging: Path, target: Path) -> None:
    """Move a folder into place; one that stands there is not a whole model (see `local_model`) and goes."""
    if target.exists():
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
        shutil.rmtree(model.folder)
    except OSError as error:
        raise HerdError(f"cannot remove {model.folder}: {error.strerror}") from error


def _record(values: Mapping[str, Any]) -> Record:
    """Raises TypeError, KeyError, ValueError for what no openherd wrote."""
    hub = values.get("hub")
    if hub is not None:
        files = tuple(StoredFile(**file) for file in hub["files"])
        hub = HubOrigin(**{**hub, "files": files})
        main = values["file"]
        if not files or (main and main not in {file.name for file in files}):
            raise ValueError("a model without its files")
    return Record(**{**values, "hub": hub})
