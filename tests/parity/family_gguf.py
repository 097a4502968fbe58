"""Write a small checkpoint of any family as GGUF, as llama.cpp's converter lays it out.

Names come from the `gguf` package's own table; what else the converter does (rows of queries and keys permuted for
"llama" and "smollm3", Falcon's fused rows sorted, one added to Gemma's norms, experts stacked) is written out here.
Nothing is shared with openherd's readers. Facts from llama.cpp's `conversion/`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
Config = Mapping[str, Any]

ARCHITECTURES = {"mistral": "llama", "mixtral": "llama", "gemma3_text": "gemma3"}


def write_family_gguf(path: Path, config: Config, weights: Mapping[str, F32]) -> None:
    """`config` is config.json, `weights` the tensors under Hugging Face's names."""
    architecture = ARCHITECTURES.get(config["model_type"], config["model_type"])
    writer = gguf.GGUFWriter(path, architecture)
    extra = _KEYS.get(architecture, _llama_keys)(writer, config)
    _add_tokenizer(writer, config["vocab_size"])
    names = gguf.get_tensor_name_map(getattr(gguf.MODEL_ARCH, architecture.upper()), _layers(config))
    for name, values in {**_converted(architecture, config, weights), **extra}.items():
        stem, _, suffix = name.rpartition(".")
        known = names.get_name(stem)
        writer.add_tensor(f"{known or stem}.{suffix}", np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _layers(config: Config) -> int:
    return int(config.get("num_hidden_layers", config.get("n_layers")))


def _add_tokenizer(writer: gguf.GGUFWriter, vocab_size: int) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([f"t{i}" for i in range(vocab_size)])
    writer.add_token_types([1] * vocab_size)
    writer.add_token_merges(["t 1"])


def _common_keys(writer: gguf.GGUFWriter, c: Config) -> dict[str, Any]:
    """Keys of every decoder of Llama's kind; returns the rotary parameters of full attention."""
    rope = dict(c.get("rope_parameters") or {})
    rope = rope.get("full_attention", rope)
    writer.add_block_count(c["num_hidden_layers"])
    writer.add_context_length(c["max_position_embeddings"])
    writer.add_embedding_length(c["hidden_size"])
    writer.add_feed_forward_length(c["intermediate_size"])
    writer.add_head_count(c["num_attention_heads"])
    writer.add_head_count_kv(c["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(c["rms_norm_eps"])
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope.get("rope_type") in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType[rope["rope_type"].upper()])
        writer.add_rope_scaling_factor(rope["factor"])
    if rope.get("rope_type") == "yarn":
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    return rope


def _head_dim(c: Config) -> int:
    return int(c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"])


def _llama_keys(writer: gguf.GGUFWriter, c: Config) -> dict[str, F32]:
    rope = _common_keys(writer, c)
    if c.get("head_dim"):
        writer.add_key_length(c["head_dim"])
        writer.add_value_length(c["head_dim"])
    if c["model_type"] not in ("qwen2", "qwen3"):
        writer.add_vocab_size(c["vocab_size"])
        writer.add_rope_dimension_count(_head_dim(c))
    if c.get("num_local_experts"):
        writer.add_expert_count(c["num_local_experts"])
        writer.add_expert_used_count(c["num_experts_per_tok"])
    if c["model_type"] == "mistral":
        writer.add_sliding_window(c["sliding_window"])  # the converter leaves it out, and llama.cpp with it
    return {"rope_freqs.weight": _llama3_factors(rope, _head_dim(c))} if rope.get("rope_type") == "llama3" else {}


def _llama3_factors(rope: Config, head_dim: int) -> F32:
    frequencies = rope["rope_theta"] ** (-np.arange(0, head_dim, 2) / head_dim)
    wavelengths = 2 * math.pi / frequencies
    low, high, context = rope["low_freq_factor"], rope["high_freq_factor"], rope["original_max_position_embeddings"]
    smooth = (context / wavelengths - low) / (high - low)
    between = 1 / ((1 - smooth) / rope["factor"] + smooth)
    factors = np.where(wavelengths > context / low, rope["factor"], between)
    return np.where(wavelengths < context / high, 1.0, factors).astype(np.float32)


def _gemma_keys(writer: gguf.GGUFWriter, c: Config) -> dict[str, F32]:
    _common_keys(writer, c)
    writer.add_key_length(c["head_dim"])
    writer.add_value_length(c["head_dim"])
    writer.add_sliding_window(c["sliding_window"])
    if c["model_type"] == "gemma2":
        writer.add_attn_logit_softcapping(c["attn_logit_softcapping"])
        writer.add_final_logit_softcapping(c["final_logit_softcapping"])
    return {}


def _phi3_keys(writer: gguf.GGUFWriter, c: Config) -> dict[str, F32]:
    rope = _common_keys(writer, c)
    original = rope.get("original_max_position_embeddings", c["original_max_position_embeddings"])
    writer.add_rope_scaling_orig_ctx_len(original)
    writer.add_rope_dimension_count(
        int(rope.get("partial_rotary_factor", 1.0) * c["hidden_size"]) // c["num_attention_heads"]
    )
    writer.add_sliding_window(c["sliding_window"] or 0)
    if "long_factor" not in rope:
        return {}
    scale = c["max_position_embeddings"] / original
    writer.add_rope_scaling_attn_factors(math.sqrt(1 + math.log(scale) / math.log(original)))
    return {
        "rope_factors_long.weight": np.array(rope["long_factor"], np.float32),
        "rope_factors_short.weight": np.array(rope["short_factor"], np.float32),
    }


def _falcon_keys(writer: gguf.GGUFWriter, c: Config) -> dict[str, F32]:
    writer.add_context_length(2048)
    writer.add_tensor_data_layout("jploski")
    writer.add_embedding_length(c["hidden_size"])
    writer.add_feed_forward_length(4 * c["hidden_size"])
    writer.add_block_count(c["num_hidden_layers"])
    writer.add_head_count(c["num_attention_heads"])
    writer.add_head_count_kv(_falcon_kv_heads(c))
    writer.add_layer_norm_eps(c["layer_norm_epsilon"])
    return {}


def _falcon_kv_heads(c: Config) -> int:
    return int(c["num_kv_heads"]) if c["new_decoder_architecture"] else 1


def _mpt_keys(writer: gguf.GGUFWriter, c: Config) -> dict[str, F32]:
    attention = c["attn_config"]
    writer.add_context_length(c["max_seq_len"])
    writer.add_embedding_length(c["d_model"])
    writer.add_block_count(c["n_layers"])
    writer.add_feed_forward_length(4 * c["d_model"])
    writer.add_head_count(c["n_heads"])
    writer.add_layer_norm_eps(1e-5)
    if attention["clip_qkv"] is not None:
        writer.add_clamp_kqv(attention["clip_qkv"])
    writer.add_max_alibi_bias(attention["alibi_bias_max"])
    return {}


_KEYS: dict[str, Callable[[gguf.GGUFWriter, Config], dict[str, F32]]] = {
    "gemma2": _gemma_keys,
    "gemma3": _gemma_keys,
    "phi3": _phi3_keys,
    "falcon": _falcon_keys,
    "mpt": _mpt_keys,
}


def _converted(architecture: str, c: Config, weights: Mapping[str, F32]) -> dict[str, F32]:
    converted = {}
    stacked: dict[str, list[tuple[int, F32]]] = {}
    for name, values in weights.items():
        if ".experts." in name:
            layer, _, rest = name.removeprefix("model.layers.").partition(".")
            expert, which = rest.removeprefix("block_sparse_moe.experts.").split(".")[:2]
            stacked.setdefault(f"layers.{layer}.feed_forward.experts.{which}.weight", []).append((int(expert), values))
        elif architecture in ("llama", "smollm3") and name.endswith(("q_proj.weight", "k_proj.weight")):
            converted[name] = _permuted(values, _head_dim(c))
        elif architecture.startswith("gemma") and name.endswith("norm.weight"):
            converted[name] = values + np.float32(1)
        elif architecture == "falcon" and "query_key_value" in name:
            converted[name] = _sorted_rows(values, c["num_attention_heads"], _falcon_kv_heads(c))
        else:
            converted[name] = values
    for name, experts in stacked.items():
        converted[name] = np.stack([values for _, values in sorted(experts, key=lambda pair: pair[0])])
    return converted


def _permuted(values: F32, head_dim: int) -> F32:
    """Pairs (i, i + d/2) side by side, as Meta's code turns them."""
    return values.reshape(-1, 2, head_dim // 2, values.shape[-1]).swapaxes(1, 2).reshape(values.shape)


def _sorted_rows(values: F32, n_heads: int, n_kv_heads: int) -> F32:
    """Groups of queries, key and value become all queries, all keys, all values."""
    groups = values.reshape(n_kv_heads, n_heads // n_kv_heads + 2, -1, values.shape[-1])
    parts = (groups[:, :-2], groups[:, -2:-1], groups[:, -1:])
    return np.concatenate([part.reshape(-1, values.shape[-1]) for part in parts])
