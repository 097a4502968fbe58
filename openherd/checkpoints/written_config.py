"""A ModelConfig as the keys of GGUF, and rotary scalings as both layouts have them: the inverse of `families`.

What is written is read back by the family's own reader before anything else is done (`workshop/convert`), so a
variation that has no key here is refused instead of lost.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openherd.checkpoints.families import Family
from openherd.checkpoints.gguf import LONGROPE_FACTORS, ROPE_FACTORS
from openherd.checkpoints.gguf_writer import KeyValue
from openherd.config import ModelConfig, RopeScaling
from openherd.errors import UnsupportedError

# What Llama 3.1 and 3.2 were released with, and the trained contexts that others may choose.
_LOW, _HIGH = 1.0, 4.0
_FACTORS = (8.0, 32.0)
_TRAINED = (8192, *(1 << power for power in range(4, 21)))


def gguf_keys(config: ModelConfig, family: Family) -> dict[str, KeyValue]:
    """Keys under the architecture's name."""
    arch = family.architecture
    epsilon = "layer_norm_rms_epsilon" if config.norm == "rms" else "layer_norm_epsilon"
    keys: dict[str, KeyValue] = {
        f"{arch}.block_count": config.n_layers,
        f"{arch}.context_length": config.max_seq_len,
        f"{arch}.embedding_length": config.dim,
        f"{arch}.feed_forward_length": config.ffn_dim,
        f"{arch}.attention.head_count": config.n_heads,
        f"{arch}.attention.head_count_kv": config.n_kv_heads,
        f"{arch}.attention.{epsilon}": config.norm_eps,
        f"{arch}.rope.freq_base": config.rope_theta,
        f"{arch}.rope.dimension_count": config.rotary_dim,
        f"{arch}.vocab_size": config.vocab_size,
    }
    if config.q_dim != config.dim:
        keys[f"{arch}.attention.key_length"] = config.head_dim
        keys[f"{arch}.attention.value_length"] = config.head_dim
    variations = {f"{arch}.{name}": value for name, value in _gguf_variations(config, arch).items() if value}
    return keys | variations | _gguf_scaling(config.rope_scaling, f"{arch}.rope.scaling.")


def _gguf_variations(config: ModelConfig, arch: str) -> dict[str, KeyValue]:
    """Keys of what Llama 2 does not have; those that are 0 are left out."""
    gemma = arch in ("gemma2", "gemma3")
    own_scale = gemma and config.attention_scale != config.head_dim**-0.5
    return {
        "attention.sliding_window": config.sliding_window,
        "attention.sliding_window_pattern": config.full_attention_every,
        "attention.scale": (config.attention_scale or 0.0) if own_scale else 0.0,
        "attn_logit_softcapping": config.attention_softcap,
        "final_logit_softcapping": config.logit_softcap,
        "rope.freq_base_swa": config.local_rope_theta,
        "expert_count": config.n_experts,
        "expert_used_count": config.n_experts_per_token,
        "attention.clamp_kqv": config.clip_qkv,
        "attention.max_alibi_bias": config.alibi_max_bias,
        "tensor_data_layout": "jploski" if arch == "falcon" else "",
    }


def _gguf_scaling(scaling: RopeScaling, prefix: str) -> dict[str, KeyValue]:
    if scaling.kind == "linear":
        return {prefix + "type": "linear", prefix + "factor": scaling.factor}
    if scaling.kind == "yarn":
        keys: dict[str, KeyValue] = {
            prefix + "type": "yarn",
            prefix + "factor": scaling.factor,
            prefix + "original_context_length": scaling.original_max_seq_len,
            prefix + "yarn_beta_fast": scaling.beta_fast,
            prefix + "yarn_beta_slow": scaling.beta_slow,
        }
        if scaling.attention_factor is not None:
            keys[prefix + "attn_factor"] = scaling.attention_factor / (0.1 * math.log(scaling.factor) + 1.0)
        return keys
    if scaling.kind == "longrope":
        return {
            prefix + "original_context_length": scaling.original_max_seq_len,
            prefix + "attn_factor": scaling.longrope_temperature,
        }
    return {}  # llama3 becomes ready-made divisors


def rope_tensors(config: ModelConfig) -> dict[str, NDArray[np.float32]]:
    """Divisors of rotary frequencies, one a pair, as GGUF has them: Llama 3's scaling, LongRoPE's two lists."""
    if config.rope_factors:
        return {ROPE_FACTORS: np.array(config.rope_factors, np.float32)}
    scaling = config.rope_scaling
    if scaling.kind == "llama3":
        return {ROPE_FACTORS: _llama3_divisors(config, scaling).astype(np.float32)}
    if scaling.kind == "longrope":
        lists = scaling.short_factors, scaling.long_factors
        return {name: np.array(values, np.float32) for name, values in zip(LONGROPE_FACTORS, lists, strict=True)}
    return {}


def _llama3_divisors(config: ModelConfig, scaling: RopeScaling) -> NDArray[np.float64]:
    """The rule of Llama 3.1's released code, as 1 / (what a frequency is multiplied by)."""
    d = config.rotary_dim
    base = config.rope_theta ** (-np.arange(0, d, 2, dtype=np.float64) / d)
    rotations = scaling.original_max_seq_len * base / (2 * math.pi)
    kept = np.clip((rotations - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor), 0, 1)
    divisors: NDArray[np.float64] = 1 / (kept + (1 - kept) / scaling.factor)
    return divisors


def hf_scaling(config: ModelConfig) -> dict[str, Any] | None:
    scaling = _llama3_of(config) if config.rope_factors else config.rope_scaling
    if scaling.kind == "linear":
        return {"rope_type": "linear", "factor": scaling.factor}
    if scaling.kind == "llama3":
        return {
            "rope_type": "llama3",
            "factor": scaling.factor,
            "low_freq_factor": scaling.low_freq_factor,
            "high_freq_factor": scaling.high_freq_factor,
            "original_max_position_embeddings": scaling.original_max_seq_len,
        }
    if scaling.kind == "yarn":
        values: dict[str, Any] = {
            "rope_type": "yarn",
            "factor": scaling.factor,
            "original_max_position_embeddings": scaling.original_max_seq_len,
            "beta_fast": scaling.beta_fast,
            "beta_slow": scaling.beta_slow,
        }
        return values | ({} if scaling.attention_factor is None else {"attention_factor": scaling.attention_factor})
    if scaling.kind == "longrope":
        by_rule = replace(scaling, attention_factor=None).longrope_temperature
        is_own = not math.isclose(scaling.longrope_temperature, by_rule, rel_tol=1e-6)
        temperature = {"attention_factor": scaling.attention_factor} if is_own else {}
        lists = {"short_factor": list(scaling.short_factors), "long_factor": list(scaling.long_factors)}
        return {"type": "longrope", "rope_type": "longrope", **lists, **temperature}
    if scaling.kind != "none":
        raise UnsupportedError(f"config.json of this family has no rope scaling of the kind {scaling.kind}")
    return None


def _llama3_of(config: ModelConfig) -> RopeScaling:
    """Parameters of Llama 3's rule that give the ready-made divisors."""
    factors = np.array(config.rope_factors)
    if config.rope_scaling.kind == "none":
        for factor in (round(float(factors.max()), 3), *_FACTORS):  # the greatest divisor, where any is divided in full
            for trained in _TRAINED:
                scaling = RopeScaling("llama3", factor, trained, _LOW, _HIGH)
                if np.allclose(_llama3_divisors(config, scaling), factors, rtol=1e-5):
                    return scaling
    raise UnsupportedError(
        "the file's rotary divisors (rope_freqs.weight) follow from no rule that config.json can say",
        hint="keep the model as GGUF: --to gguf",
    )
