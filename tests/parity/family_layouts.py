"""The cases of `family_parity` as the readers of both layouts hand them over."""

from __future__ import annotations

import json
from pathlib import Path

from openherd.checkpoints import open_checkpoint
from openherd.checkpoints.hf_folder import read_hf_folder, read_model
from openherd.checkpoints.source import Tensor
from openherd.config import ModelConfig
from tests.checkpoint_files import safetensors_of
from tests.parity.family_cases import families, family_weights
from tests.parity.family_gguf import write_family_gguf

NOT_IN_GGUF = {"falcon_rw"}  # its GGUF does not say what it is
Model = tuple[ModelConfig, dict[str, Tensor]]


def from_hf(name: str, folder: Path) -> Model:
    """By way of a folder, as transformers saves it."""
    case = families()[name]
    (folder / "config.json").write_text(json.dumps(case["config"]), encoding="utf-8")
    (folder / "model.safetensors").write_bytes(safetensors_of(family_weights(case["shapes"])))
    return read_model(read_hf_folder(folder))


def from_gguf(name: str, folder: Path) -> Model:
    """By way of a file, as llama.cpp's converter lays it out."""
    path = folder / f"{name}.gguf"
    case = families()[name]
    write_family_gguf(path, case["config"], family_weights(case["shapes"]))
    checkpoint = open_checkpoint(path)
    return checkpoint.config, {key: checkpoint.tensors[key] for key in checkpoint.tensors}
