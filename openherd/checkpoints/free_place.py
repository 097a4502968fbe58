"""Whether something new can be written at a place: asked before any work, because the person can mend it."""

from __future__ import annotations

import os
import shlex
import stat
from pathlib import Path

from openherd.errors import InputError

# Of what the names of unfinished work have more than the target's: `.NAME.partial.XXXXXXXX.gone` is the longest.
_BESIDE = 23


def require_new(out: Path) -> None:
    """Of an OUT that nothing is replaced at: `require_free` and `require_folder_of`."""
    require_free(out)
    require_folder_of(out)


def require_free(out: Path, *, hint: str = "name another place, or remove it first") -> None:
    """Raises InputError when something is there already, be it a link that leads nowhere."""
    if os.path.lexists(out):
        raise InputError(f"{out} exists already", hint=hint)


def require_folder_of(out: Path) -> None:
    """Raises InputError when the folder that `out` is to lie in is missing or closed, and for a name that is too long
    for it."""
    folder = out.parent
    try:
        there = stat.S_ISDIR(os.stat(folder).st_mode)
    except FileNotFoundError:
        there = False
    except OSError as error:
        raise InputError(f"{folder}: {error.strerror or error}") from None
    if not there:
        hint = None if os.path.lexists(folder) else f"try: mkdir -p {shlex.quote(str(folder))}"
        raise InputError(f"{folder} is no folder", hint=hint)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"{folder} cannot be written to")
    longest = os.pathconf(folder, "PC_NAME_MAX") - _BESIDE
    if len(os.fsencode(out.name)) > longest:
        raise InputError(f"the name {out.name} is too long", hint=f"name one of at most {longest} bytes")
