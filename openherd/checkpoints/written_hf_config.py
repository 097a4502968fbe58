"""A ModelConfig as Hugging Face's config.json: the inverse of `families`.

What is written is read back by the family's own reader before anything else is done (`workshop/convert`), so a
variation that has no key here is refused instead of lost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from openherd.checkpoints.families import Family
from openherd.checkpoints.written_config import hf_scaling
from openherd.config import ModelConfig

Settings = dict[str, Any]


def hf_config(config: ModelConfig, family: Family, dtype: str) -> Settings:
    """config.json. Raises UnsupportedError for ready-made divisors that no parameters of Llama 3's rule give."""
    model_type, name = _kind(config, family)
    common = {
        "architectures": [f"{name}ForCausalLM"],
        "model_type": model_type,
        "torch_dtype": dtype,
        "use_cache": True,
    }
    return common | _SETTINGS.get(family.name, _decoder)(config)


def _kind(config: ModelConfig, family: Family) -> tuple[str, str]:
    """`model_type` and the class's name. What GGUF calls "llama" is Mixtral with experts, Mistral with a window."""
    if family.name == "llama":
        kind = "mixtral" if config.n_experts else "mistral" if config.sliding_window else "llama"
        return kind, kind.capitalize()
    return family.model_types[0], _CLASSES[family.name]


_CLASSES = {
    "smollm3": "SmolLM3",
    "qwen2": "Qwen2",
    "qwen3": "Qwen3",
    "gemma2": "Gemma2",
    "gemma3": "Gemma3",
    "phi3": "Phi3",
    "falcon": "Falcon",
    "mpt": "Mpt",
}


def _decoder(c: ModelConfig) -> Settings:
    """What families of Llama's form have in common, with the keys of Mistral and Mixtral where they are needed."""
    settings: Settings = {
        "hidden_act": "silu",
        "hidden_size": c.dim,
        "intermediate_size": c.ffn_dim,
        "num_hidden_layers": c.n_layers,
        "num_attention_heads": c.n_heads,
        "num_key_value_heads": c.n_kv_heads,
        "head_dim": c.head_dim,
        "vocab_size": c.vocab_size,
        "max_position_embeddings": c.max_seq_len,
        "rms_norm_eps": c.norm_eps,
        "rope_theta": c.rope_theta,
        "rope_scaling": hf_scaling(c),
        "tie_word_embeddings": c.tied_embeddings,
        "attention_bias": c.qkv_bias,
        "mlp_bias": c.mlp_bias,
    }
    if c.n_experts:
        settings |= {"num_local_experts": c.n_experts, "num_experts_per_tok": c.n_experts_per_token}
        settings["sliding_window"] = c.sliding_window or None
    elif c.sliding_window:
        settings["sliding_window"] = c.sliding_window
    return settings


def _layer_types(c: ModelConfig) -> list[str]:
    return ["sliding_attention" if c.window(layer) else "full_attention" for layer in range(c.n_layers)]


def _qwen(c: ModelConfig) -> Settings:
    settings = _decoder(c) | {"use_sliding_window": bool(c.sliding_window), "sliding_window": c.sliding_window or None}
    if c.sliding_window:
        settings["layer_types"] = _layer_types(c)
    if not c.qk_norm:
        del settings["attention_bias"]  # Qwen 2 has those of queries, keys and values always
    return settings


def _smollm3(c: ModelConfig) -> Settings:
    rotated = [int(c.rotates(layer)) for layer in range(c.n_layers)]
    return _decoder(c) | {"no_rope_layers": rotated, "no_rope_layer_interval": c.no_rope_every or c.n_layers + 1}


def _phi3(c: ModelConfig) -> Settings:
    settings = _decoder(c) | {
        "sliding_window": c.sliding_window or None,
        "partial_rotary_factor": c.rotary_dim / c.head_dim,
        "original_max_position_embeddings": c.rope_scaling.original_max_seq_len or c.max_seq_len,
    }
    if settings["rope_scaling"] is not None:
        settings["rope_scaling"].pop("rope_type", None)  # Phi-3's own spelling is `type`
    return settings


def _gemma(c: ModelConfig) -> Settings:
    settings = _decoder(c) | {
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": _whole_if_it_is(round((c.attention_scale or c.head_dim**-0.5) ** -2, 6)),
        "attn_logit_softcapping": c.attention_softcap or None,
        "final_logit_softcapping": c.logit_softcap or None,
        "sliding_window": c.sliding_window or None,
        "layer_types": _layer_types(c),
    }
    if c.local_rope_theta:
        settings["rope_local_base_freq"] = c.local_rope_theta
    return settings


def _falcon(c: ModelConfig) -> Settings:
    grouped = c.n_kv_heads > 1 and c.parallel_norms > 0
    return {
        "activation": c.activation,
        "alibi": bool(c.alibi_max_bias),
        "bias": c.qkv_bias,
        "ffn_hidden_size": c.ffn_dim,
        "hidden_size": c.dim,
        "layer_norm_epsilon": c.norm_eps,
        "max_position_embeddings": c.max_seq_len,
        "multi_query": c.n_kv_heads == 1,
        "new_decoder_architecture": grouped,
        "num_attention_heads": c.n_heads,
        "num_hidden_layers": c.n_layers,
        "num_kv_heads": c.n_kv_heads,
        "num_ln_in_parallel_attn": c.parallel_norms if grouped else None,
        "parallel_attn": c.parallel_norms > 0,
        "rope_theta": c.rope_theta,
        "rope_scaling": hf_scaling(c),
        "tie_word_embeddings": c.tied_embeddings,
        "vocab_size": c.vocab_size,
    }


def _mpt(c: ModelConfig) -> Settings:
    return {
        "attn_config": {
            "alibi": True,
            "alibi_bias_max": int(c.alibi_max_bias) if c.alibi_max_bias.is_integer() else c.alibi_max_bias,
            "clip_qkv": c.clip_qkv or None,
            "softmax_scale": c.attention_scale,
        },
        "d_model": c.dim,
        "expansion_ratio": c.ffn_dim // c.dim,
        "layer_norm_epsilon": c.norm_eps,
        "logit_scale": None if c.logit_scale == 1.0 else c.logit_scale,
        "max_seq_len": c.max_seq_len,
        "n_heads": c.n_heads,
        "n_layers": c.n_layers,
        "no_bias": True,
        "tie_word_embeddings": c.tied_embeddings,
        "vocab_size": c.vocab_size,
    }


_SETTINGS: dict[str, Callable[[ModelConfig], Settings]] = {
    "smollm3": _smollm3,
    "qwen2": _qwen,
    "qwen3": _qwen,
    "gemma2": _gemma,
    "gemma3": _gemma,
    "phi3": _phi3,
    "falcon": _falcon,
    "mpt": _mpt,
}


def _whole_if_it_is(value: float) -> int | float:
    """transformers takes no float where it wants a whole number."""
    return int(value) if value.is_integer() else value
