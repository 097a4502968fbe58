"""A model file as read-only memory."""

from __future__ import annotations

import mmap
import os
import stat
from pathlib import Path

from openherd.errors import FormatError, ModelNotFoundError


def map_file(path: Path) -> mmap.mmap:
    """Map a regular file read-only; pages are read when touched.

    Raises ModelNotFoundError when nothing is there, FormatError for what cannot hold a model: a directory, a
    device or pipe, an empty or unreadable file. Not covered: a file that another program truncates while it is
    mapped ends this process with SIGBUS, as with every mapped file.
    """
    try:
        # Opening a pipe would wait for its writer: ask what it is first, and again of what was opened.
        _require_regular(path, os.stat(path).st_mode)
        with open(path, "rb") as file:
            facts = os.fstat(file.fileno())
            _require_regular(path, facts.st_mode)
            if facts.st_size == 0:
                raise FormatError(f"{path} is empty")
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise ModelNotFoundError(f"{path} does not exist") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise FormatError(f"{path} cannot be read: {error}") from None


def give_back(file: mmap.mmap, offset: int, nbytes: int) -> None:
    """Let go of the memory that holds these bytes of the file; touching them again reads them again.

    Only whole pages inside the range: a neighbour may still be in use. Where the system has no such call, nothing
    happens, and the pages stay until the system wants them.
    """
    page = mmap.ALLOCATIONGRANULARITY
    start, end = -(-offset // page) * page, (offset + nbytes) // page * page
    if start < end and hasattr(mmap, "MADV_DONTNEED"):
        file.madvise(mmap.MADV_DONTNEED, start, end - start)


def _require_regular(path: Path, mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise FormatError(f"{path} is a directory, not a model file")
    if not stat.S_ISREG(mode):
        raise FormatError(f"{path} is not a regular file")
