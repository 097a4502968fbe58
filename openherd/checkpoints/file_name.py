"""The name of a file or folder as the keys of a model can hold it."""

from __future__ import annotations

import os
from pathlib import Path


def file_name(path: Path) -> str:
    """The last part of the path. A name is any bytes to the system and keys are UTF-8: what is not becomes U+FFFD."""
    return os.fsencode(path.name).decode("utf-8", "replace")
