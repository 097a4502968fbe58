"""Record what transformers takes for keys that config.json leaves out, or has null: family_defaults.json.

Run in an environment with torch and transformers: `PYTHONPATH=. python tests/parity/make_family_defaults.py`.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from transformers import CONFIG_MAPPING, PreTrainedConfig

TYPES = (
    "llama", "mistral", "mixtral", "smollm3", "qwen2", "qwen3", "gemma2", "gemma3_text", "phi3", "falcon", "mpt",
)  # fmt: skip
# Those that a file must have: their defaults are the sizes of one model.
SIZES = (
    "hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers", "vocab_size", "d_model", "n_heads",
    "n_layers",
)  # fmt: skip
NULLS = (
    "attn_logit_softcapping", "final_logit_softcapping", "head_dim", "hidden_act", "hidden_activation",
    "max_position_embeddings", "num_key_value_heads", "original_max_position_embeddings", "query_pre_attn_scalar",
    "rms_norm_eps", "sliding_window", "tie_word_embeddings",
)  # fmt: skip
LISTS = {"short_factor": [1.0] * 48, "long_factor": [2.0] * 48}
# Settings beside the sizes, whose consequences are not those of the keys alone.
SPECIAL: dict[str, tuple[str, dict[str, Any]]] = {
    "a window by use_sliding_window": ("qwen2", {"use_sliding_window": True, "max_window_layers": 0}),
    "an original context in the scaling alone": (
        "phi3", {"rope_scaling": {"type": "longrope", "original_max_position_embeddings": 1024, **LISTS}},
    ),
    "an original context twice": (
        "phi3",
        {
            "max_position_embeddings": 8192, "original_max_position_embeddings": 2048,
            "rope_scaling": {"type": "longrope", "original_max_position_embeddings": 1024, **LISTS},
        },
    ),
}  # fmt: skip


def facts(config: PreTrainedConfig) -> dict[str, Any]:
    """What the forward pass is told, under the names of openherd's ModelConfig."""
    heads, dim = config.num_attention_heads, config.hidden_size
    rope = getattr(config, "rope_parameters", None) or {}
    full, local = rope.get("full_attention", rope), rope.get("sliding_attention", {})
    kv_heads = getattr(config, "num_key_value_heads", heads)
    if config.model_type == "falcon":
        kv_heads = config.num_kv_heads if config.new_decoder_architecture or not config.multi_query else 1
    return {
        "n_kv_heads": kv_heads,
        "head_dim": getattr(config, "head_dim", None) or dim // heads,
        "norm_eps": getattr(config, "rms_norm_eps", None) or config.layer_norm_epsilon,
        "max_seq_len": getattr(config, "max_position_embeddings", None) or config.max_seq_len,
        "rope_theta": full.get("rope_theta"),
        "local_rope_theta": local.get("rope_theta", 0.0),
        "original_max_seq_len": full.get("original_max_position_embeddings", 0),
        "tied_embeddings": config.tie_word_embeddings,
        "windows": windows(config),
        "attention_softcap": getattr(config, "attn_logit_softcapping", None) or 0.0,
        "logit_softcap": getattr(config, "final_logit_softcapping", None) or 0.0,
        "attention_scale": getattr(config, "query_pre_attn_scalar", dim // heads) ** -0.5,
        "qkv_bias": getattr(config, "attention_bias", getattr(config, "bias", config.model_type == "qwen2")),
        "mlp_bias": getattr(config, "mlp_bias", getattr(config, "bias", False)),
        "n_experts": getattr(config, "num_local_experts", 0),
        "n_experts_per_token": getattr(config, "num_experts_per_tok", 0),
    }


def windows(config: PreTrainedConfig) -> list[int]:
    """Of each of the first layers; 0: none."""
    window = getattr(config, "sliding_window", None)
    types = getattr(config, "layer_types", None) or ["sliding_attention"] * config.num_hidden_layers
    if "sliding_attention" in types and window is None and hasattr(config, "query_pre_attn_scalar"):
        raise ValueError("layers that slide need a window")  # said by the forward pass, not by the config
    return [(window or 0) if kind == "sliding_attention" else 0 for kind in types][:12]


def of_null(model_type: str, key: str) -> dict[str, Any] | None:
    """The facts where `key` is null; None where transformers refuses it."""
    try:
        return facts(CONFIG_MAPPING[model_type](**{key: None}))
    except Exception:  # of its validators, of several kinds
        return None


def record(model_type: str) -> dict[str, Any]:
    config = CONFIG_MAPPING[model_type]()
    own = config.to_dict()
    absent = facts(config)
    nulls = {key: of_null(model_type, key) for key in NULLS if key in own}
    changes = {key: value and {k: v for k, v in value.items() if v != absent[k]} for key, value in nulls.items()}
    sizes = {key: own[key] for key in SIZES if key in own}
    return {"name": model_type, "config": {"model_type": model_type, **sizes}, "facts": absent, "null": changes}


def record_special(name: str, model_type: str, settings: dict[str, Any]) -> dict[str, Any]:
    config = CONFIG_MAPPING[model_type](**copy.deepcopy(settings))  # which changes what it is given
    case = record(model_type)
    return {"name": name, "config": case["config"] | settings, "facts": facts(config), "null": {}}


if __name__ == "__main__":
    special = [record_special(name, *case) for name, case in SPECIAL.items()]
    records = [record(name) for name in TYPES]
    text = ",\n".join(json.dumps(case) for case in [*records, *special])
    Path(__file__).with_name("family_defaults.json").write_text(f"[\n{text}\n]\n")
