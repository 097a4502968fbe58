"""Tensor names: one table from GGUF's to the canonical ones, which are Hugging Face's, and back.

Source: ggml's docs/gguf.md, "Standardized tensor names"; transformers' `LlamaForCausalLM`.
"""

from __future__ import annotations

import re

# GGUF stem, canonical stem; `{}` is the number of the layer. Suffixes (`.weight`, `.bias`) are the same in both.
STEMS: tuple[tuple[str, str], ...] = (
    ("token_embd", "model.embed_tokens"),
    ("output_norm", "model.norm"),
    ("output", "lm_head"),
    ("blk.{}.attn_norm", "model.layers.{}.input_layernorm"),
    ("blk.{}.attn_q", "model.layers.{}.self_attn.q_proj"),
    ("blk.{}.attn_k", "model.layers.{}.self_attn.k_proj"),
    ("blk.{}.attn_v", "model.layers.{}.self_attn.v_proj"),
    ("blk.{}.attn_output", "model.layers.{}.self_attn.o_proj"),
    ("blk.{}.ffn_norm", "model.layers.{}.post_attention_layernorm"),
    ("blk.{}.ffn_gate", "model.layers.{}.mlp.gate_proj"),
    ("blk.{}.ffn_up", "model.layers.{}.mlp.up_proj"),
    ("blk.{}.ffn_down", "model.layers.{}.mlp.down_proj"),
)
_FROM_GGUF = dict(STEMS)
_TO_GGUF = {canonical: gguf for gguf, canonical in STEMS}
_LAYER = re.compile(r"(?<=\.)(0|[1-9][0-9]{0,8})(?=\.)")


def from_gguf(name: str) -> str | None:
    """The canonical name of a GGUF tensor; None when the table has none."""
    return _translate(name, _FROM_GGUF)


def to_gguf(name: str) -> str | None:
    """The GGUF name of a canonical tensor; None when the table has none."""
    return _translate(name, _TO_GGUF)


def _translate(name: str, stems: dict[str, str]) -> str | None:
    stem, dot, suffix = name.rpartition(".")
    if not dot or suffix not in ("weight", "bias"):
        return None
    layer = _LAYER.search(stem)
    if layer:
        stem = f"{stem[: layer.start()]}{{}}{stem[layer.end() :]}"
    elif "{}" in stem:  # a literal pair of braces is no layer
        return None
    other = stems.get(stem)
    return f"{other.format(layer[0]) if layer else other}.{suffix}" if other else None
