"""LoRA adapters that must be refused: what is changed in a sound one, the error and its message."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from openherd.errors import FormatError, HerdError, UnsupportedError
from tests.checkpoint_files import DIM, Encoded, GGUFFile, entry, f32, text, texts

RANK = 2
Change: TypeAlias = Callable[[GGUFFile], object]


def key(name: str, value: Encoded) -> Change:
    return lambda file: file.keys.update({name: value})


PEFT_REFUSED: dict[str, tuple[dict[str, Any] | bytes, type[HerdError], str]] = {
    "DoRA": ({"use_dora": True}, UnsupportedError, "use_dora is True, a variant that openherd does not support"),
    "biases": ({"bias": "all"}, UnsupportedError, "bias is 'all'"),
    "LoRA biases": ({"lora_bias": True}, UnsupportedError, "lora_bias is True"),
    "retrained modules": ({"modules_to_save": ["lm_head"]}, UnsupportedError, "modules_to_save is"),
    "ranks by pattern": ({"rank_pattern": {"q_proj": 4}}, UnsupportedError, "rank_pattern is"),
    "alphas by pattern": ({"alpha_pattern": {"q_proj": 4}}, UnsupportedError, "alpha_pattern is"),
    "PiSSA": ({"init_lora_weights": "pissa"}, UnsupportedError, "init_lora_weights is 'pissa'"),
    "transposed": ({"fan_in_fan_out": True}, UnsupportedError, "fan_in_fan_out is True"),
    "unknown key": ({"use_tomorrow": 1}, UnsupportedError, "use_tomorrow is 1"),
    "IA3": ({"peft_type": "IA3"}, UnsupportedError, "peft_type is 'IA3'; openherd supports 'LORA'"),
    "no type": ({"peft_type": None}, UnsupportedError, "peft_type is None"),
    "rank a string": ({"r": "2"}, FormatError, "r must be a whole number of at least 1"),
    "rank 0": ({"r": 0}, FormatError, "r must be a whole number of at least 1"),
    "rank a truth": ({"r": True}, FormatError, "r must be a whole number"),
    "other rank": ({"r": 3}, FormatError, "r is 3, but the tensors in adapter_model.safetensors have rank 2"),
    "alpha a string": ({"lora_alpha": "6"}, FormatError, "lora_alpha must be a finite number"),
    "alpha missing": ({"lora_alpha": None}, FormatError, "lora_alpha must be a finite number"),
    "alpha endless": ({"lora_alpha": 10**400}, FormatError, "lora_alpha must be a finite number"),
    "rslora 1": ({"use_rslora": 1}, FormatError, "use_rslora must be true or false"),
    "not JSON": (b"{", FormatError, "adapter_config.json: not usable JSON"),
    "a list": (b"[]", FormatError, "must be a JSON object"),
    "infinity": (b'{"lora_alpha": Infinity}', FormatError, "Infinity is not JSON"),
    "a key twice": (b'{"r": 2, "r": 2}', FormatError, "the key 'r' stands twice"),
    "too long": (b'{"a": "' + b"x" * (1 << 20) + b'"}', FormatError, "more than the limit"),
}

A, B = np.ones((RANK, DIM), np.float32), np.ones((DIM, RANK), np.float32)
Q = "base_model.model.model.layers.0.self_attn.q_proj"
TENSORS_REFUSED: dict[str, tuple[dict[str, np.ndarray], type[HerdError], str]] = {
    "nothing": ({}, FormatError, "holds no LoRA tensors"),
    "half a pair": ({f"{Q}.lora_A.weight": A}, FormatError, "q_proj.weight has only one half of its LoRA pair, A"),
    "magnitudes": ({f"{Q}.lora_magnitude_vector": A}, UnsupportedError, "is not a LoRA tensor of a linear map"),
    "embedding": (
        {"base_model.model.model.embed_tokens.lora_embedding_A": A},
        UnsupportedError,
        "is not a LoRA tensor",
    ),
    "head": (
        {"base_model.model.lm_head.lora_A.weight": A, "base_model.model.lm_head.lora_B.weight": B},
        UnsupportedError,
        "adapts lm_head.weight; openherd adapts q_proj, k_proj",
    ),
    "layer 2": (
        {f"{Q.replace('.0.', '.2.')}.lora_A.weight": A, f"{Q.replace('.0.', '.2.')}.lora_B.weight": B},
        FormatError,
        "layers.2.self_attn.q_proj.weight, but the model has 2 layers",
    ),
    "inputs": (
        {f"{Q}.lora_A.weight": A[:, :8], f"{Q}.lora_B.weight": B},
        FormatError,
        r"needs A \(r, 32\) and B \(32, r\)",
    ),
    "outputs": ({f"{Q}.lora_A.weight": A, f"{Q}.lora_B.weight": B[:8]}, FormatError, r"not \(2, 32\) and \(8, 2\)"),
    "ranks differ": ({f"{Q}.lora_A.weight": A, f"{Q}.lora_B.weight": B[:, :1]}, FormatError, r"and \(32, 1\)"),
    "flat": ({f"{Q}.lora_A.weight": A.ravel(), f"{Q}.lora_B.weight": B}, FormatError, r"not \(64,\) and"),
}

GGUF_REFUSED: dict[str, tuple[Change, type[HerdError], str]] = {
    "a model": (
        key("general.type", text("model")),
        UnsupportedError,
        "general.type is 'model'; an adapter for openherd",
    ),
    "other family": (key("general.architecture", text("phi3")), UnsupportedError, "architecture is 'phi3'"),
    "control vector": (key("adapter.type", text("control")), UnsupportedError, "adapter.type is 'control'; .*'lora'"),
    "activated LoRA": (
        key("adapter.alora.invocation_tokens", texts(["a"])),
        UnsupportedError,
        "does not know the key adapter.alora",
    ),
    "alpha NaN": (
        key("adapter.lora.alpha", f32(float("nan"))),
        FormatError,
        "adapter.lora.alpha must be a finite number",
    ),
    "alpha missing": (lambda f: f.keys.pop("adapter.lora.alpha"), FormatError, "adapter.lora.alpha is missing"),
    "half a pair": (
        lambda f: f.without("blk.1.attn_q.weight.lora_b"),
        FormatError,
        "only one half of its LoRA pair, A",
    ),
    "other tensor": (
        lambda f: f.tensors.append(entry("blk.0.attn_q.weight", A)),
        UnsupportedError,
        "is not a LoRA tensor",
    ),
    "a norm": (
        lambda f: f.tensors.extend(
            [entry("blk.0.attn_norm.weight.lora_a", A), entry("blk.0.attn_norm.weight.lora_b", B)]
        ),
        UnsupportedError,
        "adapts model.layers.0.input_layernorm.weight",
    ),
    "other rank": (
        lambda f: f.tensors.extend(
            [entry("blk.0.attn_q.weight.lora_a", A[:1]), entry("blk.0.attn_q.weight.lora_b", B[:, :1])]
        ),
        UnsupportedError,
        r"ranks \[1, 2\]; openherd supports one rank",
    ),
    "quantised": (
        lambda f: f.tensors.extend(
            [entry("blk.0.attn_q.weight.lora_a", A, "Q8_0"), entry("blk.0.attn_q.weight.lora_b", B)]
        ),
        UnsupportedError,
        "has type Q8_0; adapters are read as F32, F16, BF16",
    ),
}
