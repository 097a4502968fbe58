"""Checkpoints: folders that appear whole or not at all, and are refused when a byte of them has changed.

    RUN/checkpoints/step-00000100/
        model/, optimizer/   trained tensors and their moments, safetensors
        state.json           where the run is, and which run it is (`run_state`)
        manifest.json        size and SHA-256 of every other file

All files are written and synced under a temporary name (`.step-00000100.partial`), which then becomes the real one; a
folder that is to go gets a temporary name first (`.step-00000100.old`). So a kill at any moment leaves sound folders
and temporary ones, which the next run removes. Nothing is ever unpickled.

Not covered: processes that do not share the run's file system; a reader of an older checkpoint while the run that
writes them removes it.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from openherd.checkpoints.new_file import BusyError, explained, sync_folder
from openherd.checkpoints.strict_json import read_json_object
from openherd.errors import FormatError, InputError, OutputError
from openherd.store.digest import sha256_of
from openherd.train.run_state import MAX_BYTES, SavedState, read_state, written

if TYPE_CHECKING:
    from torch import Tensor

    from openherd.train.parallel.world import World

FOLDER = "checkpoints"
STATE, MANIFEST = "state.json", "manifest.json"
MODEL, OPTIMIZER = "model", "optimizer"
VERSION = 1
_NAME = re.compile(r"step-(\d{8,})")
_TEMPORARY = re.compile(r"\.step-\d{8,}\.(partial|old)")
_MAX_FILES = 100_000


@dataclass(frozen=True, slots=True)
class FileFacts:
    bytes: int
    sha256: str


def save(run: Path, saved: SavedState, tensors: Mapping[str, Mapping[str, Tensor]], world: World) -> Path:
    """Write the checkpoint of `saved.state.step`, tensors by folder, in the place of one that is there; every process
    calls it. Returns its folder.

    Raises OutputError everywhere when it cannot be written; what was there before is as it was.
    """
    folder = run / FOLDER / name_of(saved.state.step)
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        on_main(world, lambda: _begin(partial))
        for name, named in tensors.items():
            world.save_tensors(partial / name, named)
        on_main(world, lambda: _finish(partial, folder, saved))
    except OutputError as error:
        raise OutputError(error.args[0], hint=_after_failure(run, error.hint)) from None
    finally:
        if world.is_main:
            shutil.rmtree(partial, ignore_errors=True)
    return folder


def find(run: Path, which: Literal["latest", "best"] | int = "latest") -> Path:
    """The folder of a sound checkpoint: the newest, the one with the lowest evaluation loss, or that of a step.

    Raises InputError where there is none, FormatError where it is not as it was saved.
    """
    steps = steps_of(run)
    if not steps:
        raise InputError(f"{run} holds no checkpoint", hint="train one with: herd train run")
    newest = run / FOLDER / name_of(steps[-1])
    step: int = (
        steps[-1] if which == "latest" else read_saved(newest).state.best_step if which == "best" else int(which)
    )
    if step not in steps:
        known = ", ".join(map(str, steps))
        missing = "no evaluation has been made" if step < 0 else f"step {step} is not kept"
        raise InputError(f"{run}: {missing}; there are checkpoints of steps {known}")
    folder = run / FOLDER / name_of(step)
    require_sound(folder)
    return folder


def name_of(step: int) -> str:
    return f"step-{step:08d}"


def steps_of(run: Path) -> list[int]:
    """Steps of the checkpoints that are there, ascending, sound or not."""
    names = (entry.name for entry in (run / FOLDER).iterdir()) if (run / FOLDER).is_dir() else ()
    return sorted(int(match[1]) for name in names if (match := _NAME.fullmatch(name)))


def require_sound(folder: Path) -> None:
    """Every file of a checkpoint is as the manifest says. Raises FormatError that names those that are not."""
    expected = _read_manifest(folder / MANIFEST)
    found = {path.relative_to(folder).as_posix(): path for path in _files(folder)}
    lines = [line for name in sorted({*expected, *found}) if (line := _difference(name, expected, found))]
    if lines:
        raise FormatError(
            "\n".join([f"{folder} is not as it was saved:", *lines[:20]]),
            hint=f"to go on from the checkpoint before it, remove {folder}",
        )


def read_saved(folder: Path) -> SavedState:
    """What state.json of a checkpoint says. Raises FormatError."""
    return read_state(_read(folder / STATE), str(folder / STATE))


def remove_temporary(run: Path) -> list[str]:
    """Remove what a killed run left half written or half removed; returns the names."""
    names = [entry.name for entry in (run / FOLDER).iterdir() if _TEMPORARY.fullmatch(entry.name)]
    for name in names:
        shutil.rmtree(run / FOLDER / name, ignore_errors=True)
    return sorted(names)


def remove(run: Path, steps: list[int]) -> None:
    for step in steps:
        shutil.rmtree(_set_aside(run / FOLDER / name_of(step)), ignore_errors=True)


def _set_aside(folder: Path) -> Path:
    """Give a checkpoint the temporary name of one that is to go."""
    return folder.rename(folder.with_name(f".{folder.name}.old"))


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Nobody else trains in the folder meanwhile. Raises BusyError, OutputError."""
    (run / FOLDER).mkdir(parents=True, exist_ok=True)
    with (run / FOLDER / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(f"another process trains in {run}", hint="wait until it ends, or give --out") from None
        yield


def on_main(world: World, action: Callable[[], None]) -> None:
    """Let the main process act while the others wait; what fails there fails everywhere."""
    failure: Exception | None = None
    if world.is_main:
        try:
            action()
        except Exception as error:
            failure = error
    if world.any(failure is not None):
        raise failure or OutputError("the main process could not go on; its message says why")


def _begin(partial: Path) -> None:
    with explained(partial):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)


def _finish(partial: Path, folder: Path, saved: SavedState) -> None:
    """The facts beside the tensors, then the name. Every file and folder reaches the disk before the name does."""
    with explained(folder):
        _write(partial / STATE, written(saved))
        facts = {path.relative_to(partial).as_posix(): asdict(_facts(path)) for path in sorted(_files(partial))}
        _write(partial / MANIFEST, json.dumps({"version": VERSION, "files": facts}, separators=(",", ":")).encode())
        for path in (*(entry for entry in partial.iterdir() if entry.is_dir()), partial):
            sync_folder(path)
        replaced = _set_aside(folder) if folder.exists() else None
        partial.rename(folder)
        sync_folder(folder.parent)
    if replaced is not None:
        shutil.rmtree(replaced, ignore_errors=True)


def _after_failure(run: Path, hint: str | None) -> str | None:
    last = f"the run goes on from {run / FOLDER / name_of(steps[-1])}" if (steps := steps_of(run)) else None
    return "; ".join(filter(None, (hint, last))) or None


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _facts(path: Path) -> FileFacts:
    return FileFacts(path.stat().st_size, sha256_of(path))


def _files(folder: Path) -> Iterator[Path]:
    """Regular files at any depth but the manifest. Raises FormatError for what is neither file nor folder."""
    for count, path in enumerate(folder.rglob("*")):
        mode = path.lstat().st_mode
        if count >= _MAX_FILES or not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise FormatError(f"{folder} holds {path.name}, which is no file of a checkpoint")
        if stat.S_ISREG(mode) and path != folder / MANIFEST:
            yield path


def _difference(name: str, expected: Mapping[str, FileFacts], found: Mapping[str, Path]) -> str | None:
    if name not in found:
        return f"  {name}: missing"
    if name not in expected:
        return f"  {name}: not saved with it"
    was, size = expected[name], found[name].stat().st_size
    if size != was.bytes:
        return f"  {name}: {was.bytes} bytes when it was saved, {size} now"
    now = sha256_of(found[name])
    return None if now == was.sha256 else f"  {name}: sha256 {was.sha256[:16]}... when it was saved, {now[:16]}... now"


def _read_manifest(path: Path) -> dict[str, FileFacts]:
    content = read_json_object(_read(path), str(path), limit=MAX_BYTES)
    files = content.get("files")
    if content.keys() != {"version", "files"} or content["version"] != VERSION or not isinstance(files, dict):
        raise FormatError(f"{path} is no manifest of a checkpoint", hint=f"remove {path.parent} to go on without it")
    facts = {}
    for name, entry in files.items():
        if not isinstance(entry, dict) or entry.keys() != {"bytes", "sha256"}:
            raise FormatError(f"{path}: {name[:80]!r} must have exactly bytes and sha256")
        if type(entry["bytes"]) is not int or not isinstance(entry["sha256"], str):
            raise FormatError(f"{path}: {name[:80]!r} must have a number of bytes and a sha256")
        facts[name] = FileFacts(**entry)
    return facts


def _read(path: Path) -> bytes:
    """Raises FormatError: a checkpoint without this file is none."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise FormatError(f"{path} is not a regular file")
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as why:
        raise FormatError(
            f"{path} cannot be read: {why.strerror}",
            hint=f"remove {path.parent} to go on from the checkpoint before it",
        ) from None
