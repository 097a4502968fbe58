"""Readers of model files. Importing this package loads no reader and no NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openherd.checkpoints.source import Checkpoint


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Open a model file: its header is read and checked whole, tensors stay on disk until they are asked for.

    Raises ModelNotFoundError, FormatError or UnsupportedError.
    """
    from openherd.checkpoints.gguf import open_gguf

    return open_gguf(Path(path))
