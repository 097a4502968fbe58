"""The folder beside the target in which a run of convert works: nobody else's, and nothing of the user's own in it."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from openherd.checkpoints.new_file import require_alone
from openherd.checkpoints.safetensors_writer import INDEX
from openherd.errors import InputError
from openherd.workshop.convert.carried import is_carried
from openherd.workshop.golden.places import FILE

LOCK = ".lock"  # the mark of a run, which stands there before anything else and is gone with the partial folder
_SHARD = re.compile(r"model(-\d{5,}-of-\d{5,})?\.safetensors(\.journal)?", re.ASCII)
_UNFINISHED = re.compile(r"\.(.+)\.[0-9a-f]{8}\.new")  # of a small file, as `new_file` names it


@contextmanager
def alone(partial: Path, out: Path) -> Iterator[None]:
    """The partial folder, made if need be, and nobody else in it.

    Raises BusyError when another process fills it, and InputError, before anything in it is touched, for what a run
    cannot have left there: a link could lead anywhere, and files of the user's own would be deleted or moved to `out`.
    """
    if not os.path.lexists(partial):
        partial.mkdir(exist_ok=True)
    require_own(partial, out)
    with (partial / LOCK).open("a") as file:
        require_alone(file, partial / LOCK, out)
        yield


def require_own(partial: Path, out: Path) -> None:
    """Raises InputError when what is at `partial` is no interrupted run's."""
    if os.path.lexists(partial) and (foreign := _foreign(partial)):
        raise InputError(
            f"{partial}, where the work on {out} would lie, {foreign}", hint="move it away, or name another place"
        )


def discard(partial: Path) -> None:
    """Under another name first, so that a run that begins meanwhile fills a folder of its own."""
    gone = partial.with_name(f"{partial.name}.{secrets.token_hex(4)}.gone")
    os.rename(partial, gone)
    shutil.rmtree(gone, ignore_errors=True)


def _foreign(partial: Path) -> str | None:
    """What says that the folder is not an interrupted run's."""
    if partial.is_symlink() or not partial.is_dir():
        return "is no folder of openherd's"
    entries = list(os.scandir(partial))
    strange = next((e.name for e in entries if not (_is_ours(e.name) and e.is_file(follow_symlinks=False))), None)
    if strange is not None:
        return f"holds {strange!r}, which openherd did not put there"
    if entries and all(entry.name != LOCK for entry in entries):
        return "holds files, and no mark of an interrupted run"
    return None


def _is_ours(name: str) -> bool:
    whole = _UNFINISHED.fullmatch(name)
    name = whole[1] if whole else name
    return name in (LOCK, "config.json", INDEX, FILE) or is_carried(name) or _SHARD.fullmatch(name) is not None
