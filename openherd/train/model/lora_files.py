"""Adapters on disk in PEFT's layout: a folder with adapter_config.json and adapter_model.safetensors.

PEFT loads such a folder, and so does `herd chat --adapter` (through `checkpoints/peft_adapter.py`).
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from torch import Tensor

from openherd.checkpoints.gguf_writer import PlannedTensor
from openherd.checkpoints.new_file import write_new_file, write_new_text
from openherd.checkpoints.peft_adapter import CONFIG, WEIGHTS, open_peft_adapter
from openherd.checkpoints.safetensors_writer import FILE_METADATA, lay_out
from openherd.errors import FormatError, OptionError
from openherd.quant.types import BLOCK_TYPES
from openherd.train.model.decoder import Decoder
from openherd.train.model.filling import fill, whole
from openherd.train.model.leaves import Adaptable
from openherd.train.model.loading import float_values
from openherd.train.model.lora import adapted_leaves, add_lora, lora_parameters

_WRAPPED = "base_model.model."  # what PEFT's names begin with


def write_adapter(model: Decoder, folder: Path, base_model: str = "") -> None:
    """The model's adapters, in float32; `base_model` is the reference of the model that they were trained on.

    The weights are written before the config, each of them whole or not at all. Of a sharded model every process must
    call this, and each writes: give all but one a folder of their own. Raises OptionError for a model without adapters.
    """
    tensors = [_planned(_WRAPPED + name, whole(parameter)) for name, parameter in lora_parameters(model)]
    if not tensors:
        raise OptionError("the model has no adapter to write")
    folder.mkdir(parents=True, exist_ok=True)
    laid = lay_out(tensors, FILE_METADATA)
    write_new_file(folder / WEIGHTS, laid.head, laid.pieces, size=laid.size)
    write_new_text(folder / CONFIG, json.dumps(adapter_config(model, base_model), indent=2) + "\n")


def adapter_config(model: Decoder, base_model: str) -> dict[str, object]:
    """What adapter_config.json says."""
    leaves = dict(adapted_leaves(model))
    first = next(iter(leaves.values()))
    rank = first.lora_A.out_features
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model or None,
        "r": rank,
        "lora_alpha": first.adapter_scale * rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted({path.rpartition(".")[2] for path in leaves}),
        "inference_mode": True,
    }


def _planned(name: str, values: Tensor) -> PlannedTensor:
    rows = np.ascontiguousarray(values.float().cpu().numpy()).view(np.uint8)
    return PlannedTensor(name, tuple(values.shape), BLOCK_TYPES["F32"], lambda: [rows])


def read_adapter(model: Decoder, folder: Path) -> None:
    """Give the model the adapter in `folder`, or set the values of the one it has.

    Raises FormatError when the model already has another kind of adapter; see `open_peft_adapter` for the rest.
    """
    adapter = open_peft_adapter(folder, model.config)
    paths = {name.removesuffix(".weight") for name in adapter.pairs}
    leaves = dict(adapted_leaves(model))
    if not leaves:
        add_lora(model, adapter.rank, adapter.scale * adapter.rank, sorted({p.rpartition(".")[2] for p in paths}))
        leaves = dict(adapted_leaves(model))
    if leaves.keys() != paths or not all(_agrees(leaf, adapter.rank, adapter.scale) for leaf in leaves.values()):
        raise FormatError(f"{folder} adapts other linear maps than the model's adapter, or has another rank or scale")
    for name, pair in adapter.pairs.items():
        leaf = leaves[name.removesuffix(".weight")]
        for half, values in ((leaf.lora_A, pair.a), (leaf.lora_B, pair.b)):
            fill(half.weight, float_values(values))


def _agrees(leaf: Adaptable, rank: int, scale: float) -> bool:
    return leaf.lora_A.out_features == rank and abs(leaf.adapter_scale - scale) <= 1e-6 * abs(scale)
