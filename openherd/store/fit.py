"""Whether a model can run here, before it is fetched: weights and KV cache against memory, from its header alone."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openherd.checkpoints.describe import describe
from openherd.checkpoints.hf_folder import CONFIG, read_hf_folder, read_model, require_family
from openherd.checkpoints.json_keys import JsonKeys
from openherd.checkpoints.strict_json import read_json_object
from openherd.errors import CapacityError, FormatError, HerdError, ModelNotFoundError, UnsupportedError
from openherd.store.progress import megabytes

CUSTOMARY_CONTEXT = 4096
"""Tokens counted with where nobody asked for a context: a conversation of some length."""

_KV_BYTES = 2  # of one value, in f16
_GREATEST = 1 << 24


@dataclass(frozen=True, slots=True)
class Machine:
    """Bytes of memory: all that this process could ever have, and what is free now."""

    total: int
    free: int


@dataclass(frozen=True, slots=True)
class Need:
    """What a model takes. None: not known before it is here. `unsupported` says why openherd would not run it."""

    weights: int
    kv_per_token: int | None = None
    trained_context: int | None = None
    unsupported: str | None = None

    def context(self, asked: int | None) -> int:
        return asked or min(CUSTOMARY_CONTEXT, self.trained_context or CUSTOMARY_CONTEXT)

    def num_bytes(self, asked: int | None) -> int:
        return self.weights + (self.kv_per_token or 0) * self.context(asked)

    def said(self, asked: int | None, machine: Machine | None) -> str:
        """One line: the need, and what there is."""
        context = self.context(asked)
        if self.kv_per_token is None:
            need = f"{megabytes(self.weights)} weights by the files' sizes; the KV cache is not known before it is here"
        else:
            trained = f" (trained for {self.trained_context:,})" if self.trained_context else ""
            need = (
                f"{megabytes(self.num_bytes(asked))}: {megabytes(self.weights)} weights and "
                f"{megabytes(self.kv_per_token * context)} KV cache for {context:,} tokens{trained}"
            )
        here = f"; here {megabytes(machine.total)}, free now {megabytes(machine.free)}" if machine else ""
        return need + here


def need_of_gguf(hollow: Path, size: int) -> Need | None:
    """From a GGUF file, or the first part of one, that need not hold its tensors; None when it is not sound."""
    try:
        facts = describe(hollow)
    except (FormatError, ModelNotFoundError):
        return None
    except UnsupportedError as error:
        return Need(size, unsupported=_of_the_model(str(error), hollow.parent))
    unsupported = _of_the_model(facts["unsupported"] or "", hollow.parent) or None
    memory, config = facts["memory"], facts["config"]
    if memory is None or config is None:
        return Need(size, unsupported=unsupported)
    return Need(memory["weights"], memory["kv_per_token_f16"], config["max_seq_len"], unsupported)


def need_of_folder(hollow: Path, size: int) -> Need | None:
    """From a folder of config and safetensors that need not hold their tensors; None when they are not sound.

    The tokenizer is not asked for: it says nothing of memory, and may be missing here.
    """
    try:
        config, tensors = read_model(read_hf_folder(hollow))
    except (FormatError, ModelNotFoundError):
        return None
    except UnsupportedError as error:
        return Need(size, unsupported=_of_the_model(str(error), hollow))
    weights = sum(tensor.nbytes for tensor in tensors.values())
    return Need(weights, 2 * config.n_layers * config.kv_dim * _KV_BYTES, config.max_seq_len)


def need_of_config(raw: bytes, weights: int) -> Need:
    """From `config.json` in transformers' words. Sliding windows count as full attention: the need is at most this."""
    try:
        config = read_json_object(raw, CONFIG)
    except HerdError as error:
        return Need(weights, unsupported=str(error))
    unsupported = _unsupported_config(config)
    text = config.get("text_config")
    values: Mapping[str, Any] = text if isinstance(text, dict) else config
    layers, heads, dim = (_whole(values, *names) for names in _NAMES)
    kv_heads = _whole(values, "num_key_value_heads") or _falcon_kv_heads(values) or heads
    head_dim = _whole(values, "head_dim") or (dim // heads if dim and heads else None)
    trained = _whole(values, "max_position_embeddings", "max_seq_len", "n_positions")
    if not (layers and kv_heads and head_dim):
        return Need(weights, trained_context=trained, unsupported=unsupported)
    return Need(weights, 2 * layers * kv_heads * head_dim * _KV_BYTES, trained, unsupported)


def check_fit(need: Need, asked: int | None, machine: Machine | None, *, hint: str) -> None:
    """Raises UnsupportedError for what openherd does not run, CapacityError for what this machine can never hold."""
    if need.unsupported:
        raise UnsupportedError(f"openherd would not run it: {need.unsupported.splitlines()[0]}", hint=hint)
    if asked and need.trained_context and asked > need.trained_context:
        raise CapacityError(
            f"--context {asked:,} is more than the {need.trained_context:,} tokens it was trained for", hint=hint
        )
    if machine and need.num_bytes(asked) > machine.total:
        raise CapacityError(
            f"it does not fit this machine's memory: {need.said(asked, machine)}",
            hint=f"choose a smaller quantisation{' or --context' if need.kv_per_token else ''}; {hint}",
        )


_NAMES = (
    ("num_hidden_layers", "n_layers", "n_layer"),
    ("num_attention_heads", "n_heads", "n_head"),
    ("hidden_size", "d_model", "n_embd"),
)


def _unsupported_config(config: Mapping[str, Any]) -> str | None:
    """Why openherd would not run a model with this `config.json`, as far as that is plain without its tensors."""
    keys = JsonKeys(Path(CONFIG), config)
    try:
        require_family(keys)
        if "quantization_config" in keys:
            method = keys.section("quantization_config").shown("quantization_config.quant_method")
            return f"{CONFIG} has a quantization_config (quant_method {method}), of which openherd reads none"
    except HerdError as error:
        return str(error)
    return None


def _falcon_kv_heads(values: Mapping[str, Any]) -> int | None:
    """None: as many as queries. `num_kv_heads` is in use in the new architecture alone (7B's says 71, and it has 1)."""
    if values.get("new_decoder_architecture"):
        return _whole(values, "num_kv_heads")
    return 1 if values.get("multi_query", values.get("model_type") == "falcon") else None


def _whole(values: Mapping[str, Any], *names: str) -> int | None:
    value = next((values[name] for name in names if values.get(name) is not None), None)
    return value if type(value) is int and 0 < value <= _GREATEST else None


def _of_the_model(message: str, folder: Path) -> str:
    """The message without the place where the model was looked at."""
    return message.replace(f"{folder}{os.sep}", "").replace(os.fspath(folder), "the model")
