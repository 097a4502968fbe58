"""A GGUF model as a Checkpoint: canonical names, canonical row order, config, tokenizer facts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openherd.checkpoints import llama_config, names
from openherd.checkpoints.gguf_header import GGUFHeader, read_header
from openherd.checkpoints.gguf_keys import Keys
from openherd.checkpoints.gguf_tokenizer import read_tokenizer
from openherd.checkpoints.required_tensors import required_tensors
from openherd.checkpoints.rotary_rows import halves_from_interleaved, is_rotary
from openherd.checkpoints.source import Checkpoint, Tensor
from openherd.checkpoints.string_array import StringArray
from openherd.checkpoints.tensor_info import TensorInfo
from openherd.config import ModelConfig
from openherd.errors import FormatError, UnsupportedError
from openherd.quant.dequantize import dequantize

# Ready-made divisors of the rotary frequencies (Llama 3.1 and later).
ROPE_FACTORS = "rope_freqs.weight"
# The inverse frequencies themselves, which some early files carry though they follow from the config.
_DERIVED_SUFFIX = ".attn_rot_embd.inv_freq"
_LONGEST_METADATA_ARRAY = 64
# Biases and norms are stored plain: a quantised one would have blocks that span heads.
_PLAIN = ("F32", "F16", "BF16")


def open_gguf(path: Path) -> Checkpoint:
    """Read the header of `path`, check it whole, and map its tensors.

    Raises FormatError, UnsupportedError or ModelNotFoundError; see `gguf_header.read_header` and
    `llama_config.read_config`.
    """
    header = read_header(path)
    keys = Keys(path, header.keys)
    config = read_model_config(header, keys)
    return Checkpoint(
        path=path,
        format=f"GGUF v{header.version}",
        config=config,
        tensors=dict(_tensors(header, config)),
        tokenizer=read_tokenizer(keys, config.vocab_size),
        chat_template=keys.text("tokenizer.chat_template") if "tokenizer.chat_template" in keys else None,
        license=keys.text("general.license") if "general.license" in keys else None,
        metadata=short_metadata(header),
    )


def read_model_config(header: GGUFHeader, keys: Keys) -> ModelConfig:
    """The config that keys and tensors make together, with every tensor it needs known to be there."""
    _require_llama(keys)
    embedding = header.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise FormatError(f"{header.path}: the tensor token_embd.weight is missing or not a matrix")
    config = llama_config.read_config(
        keys,
        vocab_size=embedding.shape[0],
        biases=_biases(header),
        tied="output.weight" not in header.tensors,
    )
    if ROPE_FACTORS in header.tensors:
        config = replace(config, rope_factors=_rope_factors(header, config))
    _check_tensors(header, config)
    _check_quantization(header, keys)
    return config


def short_metadata(header: GGUFHeader) -> dict[str, Any]:
    """The file's keys as plain Python values; of a long array only its length."""
    return {key: _plain(value) for key, value in header.keys.items()}


def _plain(value: Any) -> Any:
    if not isinstance(value, np.ndarray | StringArray):
        return value
    if len(value) > _LONGEST_METADATA_ARRAY:
        return f"array of {len(value)}"
    return value.tolist() if isinstance(value, np.ndarray) else list(value)


def _require_llama(keys: Keys) -> None:
    kind = keys.text("general.type", "model")
    if kind != "model":
        raise UnsupportedError(f"{keys.path} holds a GGUF {keys.shown('general.type')} (general.type), not a model")
    architecture = keys.text("general.architecture")
    if architecture != llama_config.ARCHITECTURE:
        shown = keys.shown("general.architecture")
        raise UnsupportedError(
            f"{keys.path} has the architecture {shown}; openherd runs {llama_config.ARCHITECTURE!r}"
            " (Llama 1 to 3, SmolLM, TinyLlama and others of the same form)"
        )


def _biases(header: GGUFHeader) -> frozenset[str]:
    """Stems of layer 0's biases, `q_proj` and so on; what one layer has, every layer must have."""
    canonical = (names.from_gguf(name) for name in header.tensors if name.startswith("blk.0."))
    return frozenset(name.split(".")[-2] for name in canonical if name and name.endswith(".bias"))


def _rope_factors(header: GGUFHeader, config: ModelConfig) -> tuple[float, ...]:
    info = header.tensors[ROPE_FACTORS]
    if info.shape != (config.rotary_dim // 2,) or info.type.name != "F32":
        raise FormatError(f"{header.path}: {ROPE_FACTORS} must be F32 of shape ({config.rotary_dim // 2},)")
    factors = dequantize(info.rows(header.data), info.type)[0]
    if not (np.isfinite(factors).all() and (factors > 0).all()):
        raise FormatError(f"{header.path}: {ROPE_FACTORS} must hold finite numbers greater than 0")
    return tuple(factors.tolist())


def _check_tensors(header: GGUFHeader, config: ModelConfig) -> None:
    """Every tensor that the config needs is there with its shape, and nothing else that would take part."""
    needed = set()
    for name, shape in required_tensors(config):
        gguf_name = names.to_gguf(name)
        assert gguf_name is not None, name
        info = header.tensors.get(gguf_name)
        if info is None:
            raise FormatError(f"{header.path}: the tensor {gguf_name} is missing")
        if info.shape != shape:
            raise FormatError(f"{header.path}: {gguf_name} has shape {info.shape}, but the keys ask for {shape}")
        if len(shape) == 1 and info.type.name not in _PLAIN:
            raise UnsupportedError(f"{header.path}: {gguf_name} has type {info.type.name}; a vector must be plain")
        needed.add(gguf_name)
    for name in header.tensors.keys() - needed:
        if name != ROPE_FACTORS and not name.endswith(_DERIVED_SUFFIX):
            raise UnsupportedError(f"{header.path}: the tensor {name} is not part of a Llama that openherd knows")


def _check_quantization(header: GGUFHeader, keys: Keys) -> None:
    """Version 2 of ggml's quantised blocks is the one specified in `quant/`."""
    if any(info.type.block_len > 1 for info in header.tensors.values()):
        version = keys.whole("general.quantization_version", 2)
        if version != 2:
            raise UnsupportedError(f"{header.path}: general.quantization_version is {version}; openherd reads 2")


def _tensors(header: GGUFHeader, config: ModelConfig) -> Iterator[tuple[str, Tensor]]:
    for gguf_name, info in header.tensors.items():
        name = names.from_gguf(gguf_name)
        if name is not None:
            yield name, Tensor(name, info.shape, info.type, _reader(header, info, name, config))


def _reader(header: GGUFHeader, info: TensorInfo, name: str, config: ModelConfig) -> Callable[[], NDArray[np.uint8]]:
    """How the tensor's raw rows are taken from the map: [N, row_bytes], query and key rows reordered."""
    if not is_rotary(name):
        return lambda: info.rows(header.data)
    if len(info.shape) == 2:
        return lambda: halves_from_interleaved(info.rows(header.data), config.head_dim)

    def bias() -> NDArray[np.uint8]:
        elements = info.rows(header.data).reshape(info.shape[0], info.type.block_bytes)  # an element is a row here
        return halves_from_interleaved(elements, config.head_dim).reshape(1, -1)

    return bias
