"""What a model says of itself, as plain data, for `herd inspect`. Headers only: any size answers at once."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from openherd.checkpoints.name_table import NameTable
from openherd.checkpoints.source import Tensor
from openherd.checkpoints.survey import survey
from openherd.config import ModelConfig
from openherd.parsers import model_format
from openherd.quant.types import BLOCK_TYPES

_TEMPLATE_START = 200  # characters of the chat template that are shown


def describe(path: str | Path) -> dict[str, Any]:
    """A JSON-able description of the model at `path`: a file or a folder, as `open_checkpoint` takes them.

    A model whose headers are sound but which openherd does not run is described too: `config` and `memory` are then
    None and `unsupported` says why. Raises FormatError, ModelNotFoundError, or UnsupportedError for headers that
    cannot be read.
    """
    found = survey(Path(path))
    config, template = found.config, found.template
    tensors = list(found.tensors.values())
    num_parameters = sum(math.prod(t.shape) for t in tensors)
    num_bytes = sum(t.nbytes for t in tensors)
    return {
        "path": str(found.path),
        "format": found.format,
        "files": [str(file) for file in found.files],
        "file_bytes": found.file_bytes,
        "name": found.name,
        "license": found.license,
        "architecture": found.architecture,
        "unsupported": found.unsupported,
        "assumed": list(found.notes),
        "config": _listed(asdict(config)) if config else None,
        "parameters": num_parameters,
        "bits_per_weight": round(8 * num_bytes / num_parameters, 3) if num_parameters else None,
        "types": _types(tensors),
        "memory": _memory(config, num_bytes) if config else None,
        "tokenizer": found.tokenizer,
        "chat_template": _template(template, found.template_source),
        "tool_calls": model_format(template).description,
        "thinks": model_format(template).thinks,
        "metadata": _metadata(found.metadata),
        "tensors": [_tensor(t, found.names) for t in tensors],
    }


def _listed(value: Any) -> Any:
    """Tuples as lists, as JSON has them."""
    if isinstance(value, dict):
        return {key: _listed(inner) for key, inner in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _types(tensors: list[Tensor]) -> dict[str, dict[str, float]]:
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


def _template(template: str | None, source: str | None) -> dict[str, Any] | None:
    if template is None:
        return None
    return {
        "sha256": hashlib.sha256(template.encode()).hexdigest(),
        "characters": len(template),
        "source": source,
        "start": template[:_TEMPLATE_START],
    }


def _metadata(metadata: dict[str, Any]) -> dict[str, Any]:
    """The files' keys; JSON has no NaN or infinity: as strings."""
    return {
        key: [_finite(v) for v in value] if isinstance(value, list) else _finite(value)
        for key, value in metadata.items()
    }


def _finite(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _tensor(tensor: Tensor, names: NameTable) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "canonical": ", ".join(names.from_file(tensor.name)) or None,
        "shape": list(tensor.shape),
        "type": tensor.type.name,
        "bytes": tensor.nbytes,
    }
