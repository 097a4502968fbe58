"""What a model file says of itself, as plain data, for `herd inspect`. Headers only: any size answers at once."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from openherd.checkpoints import names
from openherd.checkpoints.gguf import read_model_config, short_metadata
from openherd.checkpoints.gguf_header import GGUFHeader, read_header
from openherd.checkpoints.gguf_keys import Keys
from openherd.checkpoints.tensor_info import TensorInfo
from openherd.config import ModelConfig
from openherd.errors import HerdError
from openherd.quant.types import BLOCK_TYPES

_TEMPLATE = "tokenizer.chat_template"
_TEMPLATE_START = 200  # characters of the chat template that are shown


def describe(path: str | Path) -> dict[str, Any]:
    """A JSON-able description of the GGUF file at `path`.

    A file whose header is sound but which openherd does not run is described too: `config` and `memory` are then
    None and `unsupported` says why. Raises FormatError, ModelNotFoundError, or UnsupportedError for a header that
    cannot be read.
    """
    path = Path(path)
    header = read_header(path)
    keys = Keys(path, header.keys)
    config, unsupported = _config(header, keys)
    tensors = list(header.tensors.values())
    num_parameters = sum(math.prod(t.shape) for t in tensors)
    num_bytes = sum(t.nbytes for t in tensors)
    return {
        "path": str(path),
        "format": f"GGUF v{header.version}",
        "file_bytes": len(header.data),
        "name": _text(keys, "general.name"),
        "license": _text(keys, "general.license"),
        "architecture": _text(keys, "general.architecture"),
        "unsupported": unsupported,
        "config": asdict(config) | {"rope_factors": list(config.rope_factors)} if config else None,
        "parameters": num_parameters,
        "bits_per_weight": round(8 * num_bytes / num_parameters, 3) if num_parameters else None,
        "types": _types(tensors),
        "memory": _memory(config, num_bytes) if config else None,
        "tokenizer": _tokenizer(keys),
        "chat_template": _template(keys),
        "metadata": _metadata(header),
        "tensors": [_tensor(t) for t in tensors],
    }


def _config(header: GGUFHeader, keys: Keys) -> tuple[ModelConfig | None, str | None]:
    try:
        return read_model_config(header, keys), None
    except HerdError as error:
        return None, str(error)


def _text(keys: Keys, key: str) -> str | None:
    return keys.text(key) if key in keys else None


def _types(tensors: list[TensorInfo]) -> dict[str, dict[str, float]]:
    """By storage type, most bytes first: number of tensors, of parameters, of bytes, and bits a weight."""
    count, parameters, size = Counter[str](), Counter[str](), Counter[str]()
    for t in tensors:
        count[t.type.name] += 1
        parameters[t.type.name] += math.prod(t.shape)
        size[t.type.name] += t.nbytes
    return {
        name: {
            "tensors": count[name],
            "parameters": parameters[name],
            "bytes": size[name],
            "bits_per_weight": BLOCK_TYPES[name].bits_per_weight,
        }
        for name, _ in size.most_common()
    }


def _memory(config: ModelConfig, weights: int) -> dict[str, int]:
    """Bytes: weights as the file has them, keys and values of one token in f16, both for the trained context."""
    kv_per_token = 2 * config.n_layers * config.kv_dim * 2
    return {
        "weights": weights,
        "kv_per_token_f16": kv_per_token,
        "full_context_f16": weights + kv_per_token * config.max_seq_len,
    }


def _tokenizer(keys: Keys) -> dict[str, Any]:
    """Facts that need no token decoded."""
    tokens = "tokenizer.ggml.tokens"
    return {
        "model": _text(keys, "tokenizer.ggml.model"),
        "pre": _text(keys, "tokenizer.ggml.pre"),
        "vocab_size": len(keys.strings(tokens)) if tokens in keys else None,
    }


def _template(keys: Keys) -> dict[str, Any] | None:
    template = _text(keys, _TEMPLATE)
    if template is None:
        return None
    return {
        "sha256": hashlib.sha256(template.encode()).hexdigest(),
        "characters": len(template),
        "start": template[:_TEMPLATE_START],
    }


def _metadata(header: GGUFHeader) -> dict[str, Any]:
    """The file's keys without the template, which has a place of its own; JSON has no NaN or infinity: as strings."""
    short = short_metadata(header)
    short.pop(_TEMPLATE, None)
    return {
        key: [_finite(v) for v in value] if isinstance(value, list) else _finite(value) for key, value in short.items()
    }


def _finite(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _tensor(info: TensorInfo) -> dict[str, Any]:
    return {
        "name": info.name,
        "canonical": names.from_gguf(info.name),
        "shape": list(info.shape),
        "type": info.type.name,
        "bytes": info.nbytes,
    }
