"""A GGUF model as a Checkpoint: canonical names, canonical row order, config, tokenizer facts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from openherd.checkpoints.families import FAMILIES, Family, Present, by_architecture
from openherd.checkpoints.gguf_keys import Keys
from openherd.checkpoints.gguf_parts import GGUFModel, read_gguf
from openherd.checkpoints.gguf_tokenizer import read_tokenizer
from openherd.checkpoints.mapped_tensors import FileTensors, canonical_tensors, first_layer
from openherd.checkpoints.source import Checkpoint, Tensor
from openherd.checkpoints.string_array import StringArray
from openherd.config import ModelConfig
from openherd.errors import FormatError, UnsupportedError
from openherd.quant.dequantize import dequantize

# Ready-made divisors of the rotary frequencies (Llama 3.1 and later).
ROPE_FACTORS = "rope_freqs.weight"
TEMPLATE = "tokenizer.chat_template"
# LongRoPE's two lists (Phi-3): for contexts up to the original one, and beyond.
LONGROPE_FACTORS = ("rope_factors_short.weight", "rope_factors_long.weight")
_LONGEST_METADATA_ARRAY = 64


def open_gguf(path: Path) -> Checkpoint:
    """Read the header of `path` (and of the other parts, where it is one), check it whole, and map its tensors.

    Raises FormatError, UnsupportedError or ModelNotFoundError; see `gguf_header.read_header` and the families.
    """
    model = read_gguf(path)
    keys = model.keys
    config, tensors = read_model(model)
    template = keys.text(TEMPLATE) if TEMPLATE in keys else None
    name = model.values.get("general.name")
    return Checkpoint(
        path=path,
        format=format_of(model),
        config=config,
        tensors=tensors,
        tokenizer=read_tokenizer(keys, config.vocab_size),
        chat_template=template,
        license=keys.text("general.license") if "general.license" in keys else None,
        metadata=short_metadata(model),
        template_source=None if template is None else TEMPLATE,
        files=model.files,
        name=name if isinstance(name, str) else None,
    )


def format_of(model: GGUFModel) -> str:
    """The format in words."""
    parts = f", {len(model.files)} parts" if len(model.files) > 1 else ""
    return f"GGUF v{model.version}{parts}"


def read_model(model: GGUFModel) -> tuple[ModelConfig, dict[str, Tensor]]:
    """The config that keys and tensors make together, and every tensor that it needs."""
    keys = model.keys
    family = require_family(keys)
    names = family.names["gguf"]
    embedding = model.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise FormatError(f"{model.path}: the tensor token_embd.weight is missing or not a matrix")
    config = family.gguf_config(
        keys,
        Present(
            vocab_size=embedding.shape[0],
            tied="output.weight" not in model.tensors,
            layer=first_layer(model.tensors, names),
        ),
    )
    config = _with_rope_factors(model, config)
    file = FileTensors(
        where=str(model.path),
        tensors=model.tensors,
        names=names,
        interleaved="gguf" in family.interleaved,
        ignored=lambda name: name in (ROPE_FACTORS, *LONGROPE_FACTORS) or name.endswith(family.ignored),
    )
    tensors = canonical_tensors(file, config)
    _check_quantization(model)
    return config, tensors


def short_metadata(model: GGUFModel) -> dict[str, Any]:
    """The file's keys as plain Python values; of a long array only its length."""
    return {key: _plain(value) for key, value in model.values.items()}


def _plain(value: Any) -> Any:
    if not isinstance(value, np.ndarray | StringArray):
        return value
    if len(value) > _LONGEST_METADATA_ARRAY:
        return f"array of {len(value)}"
    return value.tolist() if isinstance(value, np.ndarray) else list(value)


def require_family(keys: Keys) -> Family:
    """The family of a GGUF file that holds a model. Raises UnsupportedError for one that openherd does not run."""
    kind = keys.text("general.type", "model")
    if kind != "model":
        raise UnsupportedError(f"{keys.path} holds a GGUF {keys.shown('general.type')} (general.type), not a model")
    family = by_architecture(keys.text("general.architecture"))
    if family is None:
        shown = keys.shown("general.architecture")
        runs = "; ".join(f"{family.architecture!r} ({family.shown})" for family in FAMILIES)
        raise UnsupportedError(f"{keys.path} has the architecture {shown}; openherd runs {runs}")
    return family


def _with_rope_factors(model: GGUFModel, config: ModelConfig) -> ModelConfig:
    """Divisors of rotary frequencies that a file has as tensors become part of the config."""
    if ROPE_FACTORS in model.tensors:
        config = replace(config, rope_factors=_rope_factors(model, config, ROPE_FACTORS))
    longrope = config.rope_scaling.kind == "longrope"
    if not longrope and any(name in model.tensors for name in LONGROPE_FACTORS):
        raise UnsupportedError(f"{model.path}: openherd does not know tensors of rope factors in {config.family!r}")
    if not longrope:
        return config
    short, long = (_rope_factors(model, config, name) for name in LONGROPE_FACTORS)
    return replace(config, rope_scaling=replace(config.rope_scaling, short_factors=short, long_factors=long))


def _rope_factors(model: GGUFModel, config: ModelConfig, name: str) -> tuple[float, ...]:
    tensor = model.tensors.get(name)
    if tensor is None:
        raise FormatError(f"{model.path}: the tensor {name} is missing")
    if tensor.shape != (config.rotary_dim // 2,) or tensor.type.name != "F32":
        raise FormatError(f"{model.path}: {name} must be F32 of shape ({config.rotary_dim // 2},)")
    factors = dequantize(tensor.rows(), tensor.type)[0]
    if not (np.isfinite(factors).all() and (factors > 0).all()):
        raise FormatError(f"{model.path}: {name} must hold finite numbers greater than 0")
    return tuple(factors.tolist())


def _check_quantization(model: GGUFModel) -> None:
    """Version 2 of ggml's quantised blocks is the one specified in `quant/`."""
    if any(tensor.type.block_len > 1 for tensor in model.tensors.values()):
        version = model.keys.whole("general.quantization_version", 2)
        if version != 2:
            raise UnsupportedError(f"{model.path}: general.quantization_version is {version}; openherd reads 2")
