"""The servers of this person that run on this machine: a small file for each, `OPENHERD_HOME/servers/PID.json`.

A server writes its own and takes it away when it ends. A file whose process is gone, or has a number that another
process took over, is stale: it is not listed, and is removed. The files are their owner's alone and hold no secrets.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from openherd.store.home import home, made

MAX_FILE_BYTES = 2**20
_MAX_FILES = 1000
# What `herd ps` shows of every model, and counts on.
_OF_MODEL: dict[str, type | tuple[type, ...]] = {
    "name": str,
    "state": str,
    "running": int,
    "waiting": int,
    "tokens_per_s": (int, float),
}


def servers_folder() -> Path:
    return home() / "servers"


class ServerFile:
    """This process's entry."""

    def __init__(self) -> None:
        """Sweeps stale files out: a killed server leaves its own. Raises `HerdError` when the folder cannot be made."""
        self._path = made(servers_folder()) / f"{os.getpid()}.json"
        running_servers()

    def write(self, facts: Mapping[str, Any]) -> None:
        """Replace the entry whole: a reader never sees half of one. Raises OSError."""
        entry = {**facts, "pid": os.getpid(), "process_start": process_start(os.getpid())}
        fresh = self._path.with_suffix(".new")
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            json.dump(entry, file)
        os.replace(fresh, self._path)

    def remove(self) -> None:
        for path in (self._path, self._path.with_suffix(".new")):
            path.unlink(missing_ok=True)


def running_servers() -> list[dict[str, Any]]:
    """Entries of the servers that run, oldest first; stale ones are removed."""
    found = []
    for path in servers_folder().glob("*.new"):
        if not _is_alive(path.stem):
            _remove(path)
    for path in sorted(servers_folder().glob("*.json"))[:_MAX_FILES]:
        entry = _entry(path)
        if entry is not None and process_start(entry["pid"]) == entry["process_start"]:
            found.append(entry)
        elif entry is not None or not _is_alive(path.stem):
            _remove(path)
    return sorted(found, key=lambda entry: (str(entry.get("started")), entry["pid"]))


def process_start(pid: int) -> str | None:
    """When that process started, in the kernel's words; None: there is none.

    Linux tells the tick, so that a number which another process took over is noticed; elsewhere only whether it lives.
    """
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if state == "Z" else fields[18]
    except (OSError, IndexError, ValueError):
        if Path("/proc/self/stat").exists():
            return None
    try:
        os.kill(pid, 0)
    except (OSError, OverflowError):
        return None
    return "alive"


def _is_alive(name: str) -> bool:
    return name.isascii() and name.isdigit() and len(name) < 20 and process_start(int(name)) is not None


def _entry(path: Path) -> dict[str, Any] | None:
    """None for what no server wrote."""
    try:
        # A pipe of that name is not waited for.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return None
            entry = json.loads(file.read(MAX_FILE_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    is_entry = isinstance(entry, dict) and isinstance(entry.get("pid"), int) and path.stem == str(entry["pid"])
    return entry if is_entry and entry["pid"] > 0 and _is_whole(entry) else None


def _is_whole(entry: dict[str, Any]) -> bool:
    texts, models = (entry.get(key) for key in ("process_start", "url", "state")), entry.get("models")
    return all(isinstance(text, str) for text in texts) and isinstance(models, list) and all(map(_is_model, models))


def _is_model(model: object) -> bool:
    return isinstance(model, dict) and all(isinstance(model.get(key), kind) for key, kind in _OF_MODEL.items())


def _remove(path: Path) -> None:
    try:
        path.unlink()
    except OSError:
        return
