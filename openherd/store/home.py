"""Where openherd keeps its files: one folder, `$OPENHERD_HOME` (default `~/.openherd`).

models/NAME/             one fetched model: its file and `record.json`
models/.fetching/        partial downloads, which the next `herd pull` resumes, and locks
servers/PID.json         what `herd ps` shows of a running server
history                  what was typed in `herd chat`
"""

from __future__ import annotations

import os
from pathlib import Path

from openherd.errors import HerdError

VARIABLE = "OPENHERD_HOME"


def home() -> Path:
    """The folder itself, absolute; it need not exist yet."""
    named = os.environ.get(VARIABLE)
    return Path(os.path.abspath(os.path.expanduser(named or "~/.openherd")))


def models_folder() -> Path:
    return home() / "models"


def fetching_folder() -> Path:
    return models_folder() / ".fetching"


def history_file() -> Path:
    """The chat's history of input lines; the folder is made, for its owner alone."""
    return made(home()) / "history"


def made(folder: Path) -> Path:
    """`folder`, created when missing. Raises HerdError when that is not allowed."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise HerdError(
            f"cannot make the folder {folder}: {error.strerror}", hint=f"set {VARIABLE} to a folder you may write"
        ) from error
    return folder
