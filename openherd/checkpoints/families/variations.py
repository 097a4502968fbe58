"""The variations of the forward pass that a config declares, in a few words each.

Every field of `ModelConfig` is a size, or has its words here: a test holds that, so that a new variation cannot stay
unnamed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from openherd.config import ModelConfig

# Fields that every model has; rope_theta and norm_eps are numbers of the same formulas.
SIZES: Final = frozenset(
    {
        "family", "dim", "n_layers", "n_heads", "n_kv_heads", "head_dim", "ffn_dim", "vocab_size", "max_seq_len",
        "norm_eps", "rope_theta", "n_experts_per_token", "full_attention_every", "norm_bias", "alibi_scale",
    }
)  # fmt: skip

_SCALINGS = {
    "linear": "linear RoPE scaling",
    "llama3": "Llama 3's RoPE scaling",
    "yarn": "YaRN",
    "longrope": "LongRoPE",
}


def _window(c: ModelConfig) -> str:
    every = c.full_attention_every
    return f"sliding window, full attention in every {_ordinal(every)} layer" if every else "sliding window"


def _ordinal(n: int) -> str:
    return {2: "2nd", 3: "3rd"}.get(n, f"{n}th")


# Field: its words, empty where the config has it as Llama 2 does.
WORDS: Final[dict[str, Callable[[ModelConfig], str]]] = {
    "norm": lambda c: ("LayerNorm with bias" if c.norm_bias else "LayerNorm without bias") if c.norm == "layer" else "",
    "post_norms": lambda c: "norms before and after each half" if c.post_norms else "",
    "qk_norm": lambda c: "query-key norm" if c.qk_norm else "",
    "parallel_norms": lambda c: (
        "",
        "attention beside the feed-forward, one norm",
        "attention beside the feed-forward, two norms",
    )[c.parallel_norms],
    "activation": lambda c: {"silu": "", "gelu": "GELU", "gelu_tanh": "GELU by tanh"}[c.activation],
    "gated": lambda c: "" if c.gated else "feed-forward without gate",
    "qkv_bias": lambda c: "biases on q, k and v" if c.qkv_bias else "",
    "o_bias": lambda c: "bias on o" if c.o_bias else "",
    "mlp_bias": lambda c: "biases in the feed-forward" if c.mlp_bias else "",
    "rope_dim": lambda c: "heads rotated in part" if c.rope_dim else "",
    "rope_scaling": lambda c: _SCALINGS[c.rope_scaling.kind] if c.rope_scaling.kind != "none" else "",
    "rope_factors": lambda c: "RoPE divisors from the file" if c.rope_factors else "",
    "local_rope_theta": lambda c: "another RoPE base in layers with a window" if c.local_rope_theta else "",
    "no_rope_every": lambda c: f"no RoPE in every {_ordinal(c.no_rope_every)} layer" if c.no_rope_every else "",
    "alibi_max_bias": lambda c: "ALiBi" if c.alibi_max_bias else "",
    "sliding_window": lambda c: _window(c) if c.sliding_window else "",
    "attention_scale": lambda c: "attention scale" if c.attention_scale is not None else "",
    "attention_softcap": lambda c: "soft cap on attention" if c.attention_softcap else "",
    "clip_qkv": lambda c: "q, k and v clipped" if c.clip_qkv else "",
    "embedding_scale": lambda c: "scaled embedding" if c.embedding_scale != 1.0 else "",
    "logit_scale": lambda c: "scaled logits" if c.logit_scale != 1.0 else "",
    "logit_softcap": lambda c: "soft cap on logits" if c.logit_softcap else "",
    "tied_embeddings": lambda c: "tied embeddings" if c.tied_embeddings else "",
    "n_experts": lambda c: f"{c.n_experts} experts, {c.n_experts_per_token} a row" if c.n_experts else "",
}


def variations(config: ModelConfig) -> tuple[str, ...]:
    """What sets the model apart from Llama 2, in the order of the table."""
    words = (word(config) for word in WORDS.values())
    return tuple(word for word in words if word)
