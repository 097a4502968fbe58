"""Whether something new can be written at a place: asked before any work, because the person can mend it."""

from __future__ import annotations

import os
from pathlib import Path

from openherd.errors import InputError


def require_free(out: Path, *, hint: str = "name another place, or remove it first") -> None:
    """Raises InputError when something is there already, be it a link that leads nowhere."""
    if os.path.lexists(out):
        raise InputError(f"{out} exists already", hint=hint)


def require_folder_of(out: Path) -> None:
    """Raises InputError when the folder that `out` is to lie in is missing."""
    if not out.parent.is_dir():
        raise InputError(f"{out.parent} is no folder", hint=f"try: mkdir -p {out.parent}")
