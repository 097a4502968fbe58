"""Readers of model files. Importing this package loads no reader and no NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openherd.checkpoints.source import Adapter, Checkpoint
    from openherd.config import ModelConfig


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Open a model file: its header is read and checked whole, tensors stay on disk until they are asked for.

    Raises ModelNotFoundError, FormatError or UnsupportedError.
    """
    from openherd.checkpoints.gguf import open_gguf

    return open_gguf(Path(path))


def open_adapter(path: str | Path, config: ModelConfig) -> Adapter:
    """Open a LoRA adapter for the model of `config`: a folder that PEFT saved, or a GGUF file.

    Raises ModelNotFoundError, FormatError or UnsupportedError, also when the adapter does not fit the model.
    """
    from openherd.checkpoints.gguf_adapter import open_gguf_adapter
    from openherd.checkpoints.peft_adapter import open_peft_adapter

    path = Path(path)
    return open_peft_adapter(path, config) if path.is_dir() else open_gguf_adapter(path, config)
