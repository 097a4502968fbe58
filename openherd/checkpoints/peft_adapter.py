"""A LoRA adapter as PEFT saves it: a folder with adapter_config.json and adapter_model.safetensors.

Each key of the config is in one of three tables: it is read, it says nothing about what the adapter computes, or it
must have a value that changes nothing. A key in no table must be empty: PEFT adds variants under new keys, and
ignoring one could change every answer.

Source: PEFT's `LoraConfig`. Not covered: adapters saved as pickles, LoRA variants (DoRA, ALoRA, ...), ranks or
scales that differ between weights, retrained modules.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from openherd.checkpoints.lora import match_pairs
from openherd.checkpoints.mapped_file import map_file
from openherd.checkpoints.safetensors import SafetensorsFile, read_safetensors
from openherd.checkpoints.source import Adapter, Tensor
from openherd.checkpoints.strict_json import read_json_object
from openherd.checkpoints.tensor_info import TensorInfo
from openherd.config import ModelConfig
from openherd.errors import FormatError, UnsupportedError

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"

READ = frozenset({"lora_alpha", "peft_type", "r", "use_rslora"})

# Where the adapter came from, how it was trained, and which modules it names: its tensors say the last themselves.
HARMLESS = frozenset(
    {
        "auto_mapping",
        "base_model_name_or_path",
        "ensure_weight_tying",
        "exclude_modules",
        "inference_mode",
        "layers_pattern",
        "layers_to_transform",
        "lora_dropout",
        "megatron_core",
        "peft_version",
        "qalora_group_size",
        "revision",
        "runtime_config",
        "target_modules",
        "task_type",
    }
)

# Values besides the empty ones at which a key changes nothing. Other ways to initialise LoRA (PiSSA, OLoRA, ...)
# change the base weights, so that the adapter does not fit the weights of the original model.
NEUTRAL: dict[str, tuple[object, ...]] = {
    "bias": ("none",),
    "init_lora_weights": (True, False, "gaussian", "orthogonal"),
}

_TENSOR = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")


def open_peft_adapter(folder: Path, config: ModelConfig) -> Adapter:
    """The adapter in `folder`, checked to fit `config`; its tensors stay on disk.

    Raises FormatError, UnsupportedError (naming the key or tensor) or ModelNotFoundError.
    """
    where = folder / CONFIG
    settings = read_json_object(map_file(where), str(where))
    _refuse_variants(where, settings)
    rank = settings.get("r")
    if type(rank) is not int or rank < 1:
        raise FormatError(f"{where}: r must be a whole number of at least 1")
    weights = read_safetensors(folder / WEIGHTS)
    pairs, found = match_pairs(weights.path, _halves(weights), config)
    if found != rank:
        raise FormatError(f"{where}: r is {rank}, but the tensors in {WEIGHTS} have rank {found}")
    return Adapter(folder, rank, _scale(where, settings, rank), pairs)


def _refuse_variants(where: Path, settings: dict[str, Any]) -> None:
    kind = settings.get("peft_type")
    if kind != "LORA":
        raise UnsupportedError(f"{where}: peft_type is {_shown(kind)}; openherd supports 'LORA'")
    for key, value in settings.items():
        if key in READ or key in HARMLESS or value in (None, False, [], {}) or value in NEUTRAL.get(key, ()):
            continue
        raise UnsupportedError(f"{where}: {key[:80]} is {_shown(value)}, a variant that openherd does not support")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _scale(where: Path, settings: dict[str, Any], rank: int) -> float:
    """alpha / r, or alpha / sqrt(r) for rank-stabilised LoRA (Kalajdzievski 2023, eq. 4)."""
    alpha = settings.get("lora_alpha")
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not abs(alpha) < 1e9:
        raise FormatError(f"{where}: lora_alpha must be a finite number")
    stabilised = settings.get("use_rslora", False)
    if not isinstance(stabilised, bool):
        raise FormatError(f"{where}: use_rslora must be true or false")
    return alpha / math.sqrt(rank) if stabilised else alpha / rank


def _halves(weights: SafetensorsFile) -> dict[str, dict[str, Tensor]]:
    """{canonical weight: {"a": Tensor, "b": Tensor}}; PEFT's names are the canonical ones, wrapped."""
    halves: dict[str, dict[str, Tensor]] = {}
    for name, info in weights.tensors.items():
        match = _TENSOR.fullmatch(name)
        if match is None:
            raise UnsupportedError(f"{weights.path}: {name[:80]!r} is not a LoRA tensor of a linear map")
        halves.setdefault(f"{match[1]}.weight", {})[match[2].lower()] = _tensor(weights, info)
    return halves


def _tensor(weights: SafetensorsFile, info: TensorInfo) -> Tensor:
    return Tensor(info.name, info.shape, info.type, lambda: info.rows(weights.data))
