"""Readers of model files. Importing this package loads no reader and no NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from openherd.errors import ModelNotFoundError, UnsupportedError

if TYPE_CHECKING:
    from openherd.checkpoints.source import Adapter, Checkpoint
    from openherd.config import ModelConfig


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Open a model: headers are read and checked whole, tensors stay on disk until they are asked for.

    `path` is a GGUF file (any part of one that is split), a folder with config.json (Hugging Face's layout), or a
    folder with params.json (Meta's). Raises ModelNotFoundError, FormatError or UnsupportedError.
    """
    path = Path(path)
    layout = layout_of(path)
    if layout == "hf":
        from openherd.checkpoints.hf_folder import open_hf

        return open_hf(path)
    if layout == "meta":
        from openherd.checkpoints.meta_folder import open_meta

        return open_meta(path)
    from openherd.checkpoints.gguf import open_gguf

    return open_gguf(path)


def layout_of(path: Path) -> Literal["gguf", "hf", "meta"]:
    """How the model at `path` is laid out; a file, whatever its name, is taken for GGUF.

    Raises ModelNotFoundError for a folder that holds no model, naming what was looked for, and UnsupportedError for a
    file that belongs to a folder's layout.
    """
    if path.is_dir():
        if (path / "config.json").exists():
            return "hf"
        if (path / "params.json").exists():
            return "meta"
        raise ModelNotFoundError(
            f"{path} holds no model: neither config.json (Hugging Face's layout) nor params.json (Meta's)",
            hint="give a .gguf file, or the folder that a model was downloaded to",
        )
    if path.suffix in (".safetensors", ".bin", ".pth") and path.exists():
        raise UnsupportedError(
            f"{path} holds weights alone; the model is the folder with its config and tokenizer",
            hint=f"try: herd inspect {path.parent}",
        )
    return "gguf"


def open_adapter(path: str | Path, config: ModelConfig) -> Adapter:
    """Open a LoRA adapter for the model of `config`: a folder that PEFT saved, or a GGUF file.

    Raises ModelNotFoundError, FormatError or UnsupportedError, also when the adapter does not fit the model.
    """
    from openherd.checkpoints.gguf_adapter import open_gguf_adapter
    from openherd.checkpoints.peft_adapter import open_peft_adapter

    path = Path(path)
    return open_peft_adapter(path, config) if path.is_dir() else open_gguf_adapter(path, config)
