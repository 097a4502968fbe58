"""The models that are here: one folder each, with a small record of where its file came from."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from openherd.errors import HerdError, ModelNotFoundError
from openherd.store.home import models_folder

RECORD = "record.json"


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of a fetched model; written once, when the file has been verified."""

    name: str
    file: str
    size: int
    sha256: str
    licence: str
    source: str
    fetched: str  # UTC, ISO 8601


@dataclass(frozen=True, slots=True)
class LocalModel:
    record: Record
    path: Path


def folder_of(name: str) -> Path:
    return models_folder() / name


def local_model(name: str) -> LocalModel | None:
    """The model of that name, or None when it is not here or not whole (no readable record, or another size)."""
    folder = folder_of(name)
    try:
        values = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        record = Record(**values)
        path = folder / record.file
        whole = record.name == name and path.parent == folder and path.stat().st_size == record.size
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    return LocalModel(record, path) if whole else None


def local_models() -> list[LocalModel]:
    """Every whole model, by name."""
    folder = models_folder()
    names = sorted(child.name for child in folder.iterdir() if child.is_dir()) if folder.is_dir() else []
    return [model for name in names if not name.startswith(".") and (model := local_model(name))]


def write_record(folder: Path, record: Record) -> None:
    with (folder / RECORD).open("w", encoding="utf-8") as file:
        json.dump(asdict(record), file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())


def remove(name: str) -> LocalModel:
    """Delete the model of that name and return what it was. Raises ModelNotFoundError when it is not here."""
    model = local_model(name)
    if model is None:
        here = ", ".join(m.record.name for m in local_models()) or "none"
        raise ModelNotFoundError(f"no fetched model is called {name!r}; here: {here}", hint="try: herd models")
    try:
        # The record goes first: a folder without one is not a model, whatever interrupts the rest.
        (model.path.parent / RECORD).unlink()
        shutil.rmtree(model.path.parent)
    except OSError as error:
        raise HerdError(f"cannot remove {model.path.parent}: {error.strerror}") from error
    return model
