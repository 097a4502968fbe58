"""A LoRA adapter in a GGUF file, as llama.cpp's convert_lora_to_gguf.py writes it.

Tensors are named after the weight they add to (`blk.0.attn_q.weight.lora_a`). Outputs of query and key maps are in
GGUF's row order, so rows of their B are reordered like the weight's own. Not covered: adapters other than LoRA,
adapters of maps that a family keeps fused in one tensor, activated LoRA.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from openherd.checkpoints.families import Family, by_name
from openherd.checkpoints.gguf_header import GGUFHeader, read_header
from openherd.checkpoints.gguf_keys import Keys
from openherd.checkpoints.lora import match_pairs
from openherd.checkpoints.rotary_rows import halves_from_interleaved, is_rotary
from openherd.checkpoints.source import Adapter, Tensor
from openherd.checkpoints.tensor_info import TensorInfo
from openherd.config import ModelConfig
from openherd.errors import UnsupportedError
from openherd.quant.types import PLAIN_TYPES

_ALPHA = "adapter.lora.alpha"
_REQUIRED = {
    "general.type": "adapter",
    "adapter.type": "lora",
}
_KNOWN = frozenset({_ALPHA, "adapter.type"})


def open_gguf_adapter(path: Path, config: ModelConfig) -> Adapter:
    """The adapter in `path`, checked to fit `config`; its tensors stay on disk.

    Raises FormatError, UnsupportedError (naming the key or tensor) or ModelNotFoundError.
    """
    header = read_header(path)
    keys = Keys(path, header.keys)
    family = by_name(config.family)
    _refuse_others(keys, family.architecture)
    pairs, rank = match_pairs(path, _halves(header, config, family), config)
    # llama.cpp takes alpha 0 to mean a scale of 1.
    alpha = keys.number(_ALPHA)
    return Adapter(path, rank, alpha / rank if alpha else 1.0, pairs)


def _refuse_others(keys: Keys, architecture: str) -> None:
    for key, value in {**_REQUIRED, "general.architecture": architecture}.items():
        if keys.text(key, "model" if key == "general.type" else None) != value:
            raise UnsupportedError(f"{keys.path}: {key} is {keys.shown(key)}; an adapter for openherd has {value!r}")
    for key in keys:
        if key.startswith("adapter.") and key not in _KNOWN:
            raise UnsupportedError(f"{keys.path}: openherd does not know the key {key}, which may change the adapter")


def _halves(header: GGUFHeader, config: ModelConfig, family: Family) -> dict[str, dict[str, Tensor]]:
    """{canonical weight: {"a": Tensor, "b": Tensor}}."""
    halves: dict[str, dict[str, Tensor]] = {}
    names = family.names["gguf"]
    for gguf_name, info in header.tensors.items():
        weight, _, side = gguf_name.rpartition(".lora_")
        held = names.from_file(weight)
        if len(held) != 1 or side not in ("a", "b"):
            raise UnsupportedError(f"{header.path}: {gguf_name!r} is not a LoRA tensor of a linear map")
        if info.type.name not in PLAIN_TYPES:
            raise UnsupportedError(
                f"{header.path}: {gguf_name} has type {info.type.name}; adapters are read as {', '.join(PLAIN_TYPES)}"
            )
        (name,) = held
        reorder = side == "b" and "gguf" in family.interleaved and is_rotary(name)
        read = _reader(header, info, reorder=reorder, head_dim=config.head_dim)
        halves.setdefault(name, {})[side] = Tensor(gguf_name, info.shape, info.type, read)
    return halves


def _reader(header: GGUFHeader, info: TensorInfo, *, reorder: bool, head_dim: int) -> Callable[[], NDArray[np.uint8]]:
    if reorder:
        return lambda: halves_from_interleaved(info.rows(header.data), head_dim)
    return lambda: info.rows(header.data)
