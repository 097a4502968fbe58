"""One writer at a time: an advisory lock between processes, freed by the kernel even when its holder is killed."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO


@contextmanager
def exclusive(path: Path, *, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold the lock file `path`; `on_wait` is called once when another process holds it.

    The holder deletes the file when it is done. Whoever waited for it, or opened it just before, sees that the name
    no longer means what it locked, and begins again.
    """
    waits = False

    def on_first_wait() -> None:
        nonlocal waits
        if not waits:
            waits = True
            on_wait()

    while True:
        with path.open("a") as file:
            _lock(file, on_first_wait)
            if not _is_at(file, path):
                continue
            try:
                yield
            finally:
                with suppress(OSError):  # the folder may be gone, or the disk read-only by now
                    path.unlink()
            return


def _lock(file: IO[str], on_wait: Callable[[], None]) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        on_wait()
        fcntl.flock(file, fcntl.LOCK_EX)


def _is_at(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False
