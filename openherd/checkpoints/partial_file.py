"""Whether what lies under the predictable name of a partial file is a run's: a file of the user's own stays as it is.

A run writes its journal before anything else, so a partial file that holds anything has one beside it, and that begins
with a plan at any time, because it appears whole.
"""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from pathlib import Path

from openherd.errors import InputError

_PLAN = re.compile(rb'"[0-9a-f]{64}"\n')  # a journal's first line


def require_no_strangers(partial: Path, journal: Path, out: Path) -> None:
    """Before one of them is opened. Raises InputError for a link, a folder, or a journal that is none."""
    for path in (partial, journal):
        with suppress(FileNotFoundError):
            if not stat.S_ISREG(os.lstat(path).st_mode):
                raise _not_ours(path, out)
    with suppress(FileNotFoundError), journal.open("rb") as file:
        if not _PLAN.match(file.read(67)):
            raise _not_ours(journal, out)


def require_begun_by_us(partial: Path, journal: Path, out: Path) -> None:
    """While nobody else holds the partial file. Raises InputError when it holds anything and has no journal."""
    if partial.stat().st_size and not journal.exists():
        raise _not_ours(partial, out)


def _not_ours(path: Path, out: Path) -> InputError:
    return InputError(
        f"{path}, where the work on {out} would lie, is no file of openherd's",
        hint="move it away, or name another place",
    )
