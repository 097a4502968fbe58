"""Falcon 7B, 40B, 180B, 11B and the RefinedWeb models: LayerNorm, attention beside the feed-forward, few KV heads.

7B has one norm for both halves, 40B and 180B one each, 11B one again; the RefinedWeb models have the halves one after
the other, biases, and ALiBi instead of rotation. (Falcon 3 is of Llama's form.)

Source: transformers' `FalconForCausalLM`; llama.cpp's architecture "falcon", whose files put queries before keys before
values. transformers rounds ALiBi's products to bfloat16; here they are float32. Not covered: GGUF of the RefinedWeb
models, which does not say what they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from openherd.checkpoints.families import gguf_config, hf_config
from openherd.checkpoints.families.family import Family, Present
from openherd.checkpoints.families.hf_rope import read_rope
from openherd.checkpoints.families.key_table import KeyTable
from openherd.checkpoints.gguf_keys import Keys
from openherd.checkpoints.json_keys import JsonKeys
from openherd.checkpoints.name_table import NameTable, Pick, Source, picked, qkv_rows
from openherd.config import ModelConfig
from openherd.errors import FormatError

NAME = "falcon"
_LAYER = "model.layers.{}."
_MAPS = {
    "self_attn.o_proj": ("self_attention.dense", "attn_output"),
    "mlp.up_proj": ("mlp.dense_h_to_4h", "ffn_up"),
    "mlp.down_proj": ("mlp.dense_4h_to_h", "ffn_down"),
    "input_layernorm": ("input_layernorm", "attn_norm"),
    "post_attention_layernorm": ("post_attention_layernorm", "ffn_norm"),
    "ln_attn": ("ln_attn", "attn_norm_2"),
    "ln_mlp": ("ln_mlp", "attn_norm"),
}
_OUTER = {
    "model.embed_tokens": ("transformer.word_embeddings", "token_embd"),
    "model.norm": ("transformer.ln_f", "output_norm"),
    "lm_head": ("lm_head", "output"),
}
_HF_KEYS = KeyTable(
    read=frozenset(
        {
            "activation", "alibi", "bias", "ffn_hidden_size", "layer_norm_epsilon", "multi_query",
            "new_decoder_architecture", "num_kv_heads", "num_ln_in_parallel_attn", "parallel_attn",
        }
    ),
    neutral={"apply_residual_connection_post_layernorm": (False,)},
)  # fmt: skip
_GGUF_KEYS = KeyTable(frozenset({"attention.layer_norm_epsilon", "tensor_data_layout"}))


def _grouped(part: int) -> Pick:
    """Hugging Face's `query_key_value`: for each KV head its queries, its key, its value."""

    def pick(config: ModelConfig, expert: int) -> Sequence[range]:
        queries = config.n_heads // config.n_kv_heads * config.head_dim
        sizes = (queries, config.head_dim, config.head_dim)
        begin, group = sum(sizes[:part]), sum(sizes)
        return [range(g * group + begin, g * group + begin + sizes[part]) for g in range(config.n_kv_heads)]

    return pick


def _hf_config(keys: JsonKeys, present: Present) -> ModelConfig:
    (hf_config.DECODER_KEYS | _HF_KEYS).refuse_unknown(keys)
    hf_config.require(keys, "activation", "gelu")
    keys.refuse_null("layer_norm_epsilon", "max_position_embeddings", "multi_query", "parallel_attn", "rope_theta")
    keys.refuse_null("tie_word_embeddings")
    dim, n_heads = keys.whole("hidden_size", least=1), keys.whole("num_attention_heads", least=1)
    if dim % n_heads:
        raise keys.wrong("hidden_size", f"must be a multiple of the {n_heads} heads")
    new = keys.truth("new_decoder_architecture", False)
    n_kv_heads = n_heads
    if new or keys.truth("multi_query", True):
        n_kv_heads = keys.whole("num_kv_heads", n_heads, least=1) if new else 1
    if n_heads % n_kv_heads:
        raise keys.wrong("num_kv_heads", f"must divide the {n_heads} heads")
    max_seq_len = keys.whole("max_position_embeddings", 2048, least=1, most=gguf_config.MAX_CONTEXT)
    theta, scaling = read_rope(keys, max_seq_len)
    head_dim, bias, alibi = dim // n_heads, keys.truth("bias", False), keys.truth("alibi", False)
    if head_dim % 2 and not alibi:
        raise keys.wrong("hidden_size", f"must make heads of even length to be rotated in pairs, not {head_dim}")
    return ModelConfig(
        family=NAME,
        dim=dim,
        n_layers=keys.whole("num_hidden_layers", least=1),
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        head_dim=head_dim,
        ffn_dim=keys.whole("ffn_hidden_size", 4 * dim, least=1),
        vocab_size=present.vocab_size,
        max_seq_len=max_seq_len,
        norm_eps=keys.positive("layer_norm_epsilon", 1e-5),
        rope_theta=theta,
        rope_scaling=scaling,
        tied_embeddings=keys.truth("tie_word_embeddings", True),
        qkv_bias=bias,
        o_bias=bias,
        mlp_bias=bias,
        norm="layer",
        norm_bias=True,
        parallel_norms=_parallel_norms(keys, new),
        activation="gelu",
        gated=False,
        alibi_max_bias=8.0 if alibi else 0.0,
        alibi_scale=head_dim**-0.5 if alibi else 1.0,  # the bias is added before scores are scaled
    )


def _parallel_norms(keys: JsonKeys, new: bool) -> int:
    if not (new or keys.truth("parallel_attn", True)):
        return 0
    return keys.whole("num_ln_in_parallel_attn", 2, least=1, most=2) if new else 1


def _gguf_config(keys: Keys, present: Present) -> ModelConfig:
    (gguf_config.DECODER_KEYS | _GGUF_KEYS).refuse_unknown(keys, f"{NAME}.")
    if keys.text(f"{NAME}.tensor_data_layout", "jploski") != "jploski":
        raise FormatError(
            f"{keys.path}: {NAME}.tensor_data_layout is not 'jploski': the order of its rows is not known"
        )
    config = gguf_config.read_decoder(keys, NAME, present, epsilon="attention.layer_norm_epsilon")
    return replace(
        config,
        norm="layer",
        norm_bias=True,
        parallel_norms=2 if "ln_attn.weight" in present.layer else 1,
        activation="gelu",
        gated=False,
    )


def _names(layout: int, layer: str, qkv: str, pick: Sequence[Pick]) -> NameTable:
    maps = {f"{_LAYER}{stem}": f"{layer}{both[layout]}" for stem, both in _MAPS.items()}
    fused = {f"{_LAYER}self_attn.{name}_proj": Source(f"{layer}{qkv}", pick[i]) for i, name in enumerate("qkv")}
    return NameTable({**{stem: both[layout] for stem, both in _OUTER.items()}, **maps, **fused})


FALCON = Family(
    name=NAME,
    shown="Falcon 7B, 40B, 180B and 11B",
    model_types=(NAME,),
    architecture=NAME,
    hf_config=_hf_config,
    gguf_config=_gguf_config,
    names={
        "hf": _names(0, "transformer.h.{}.", "self_attention.query_key_value", [_grouped(part) for part in range(3)]),
        "gguf": _names(1, "blk.{}.", "attn_qkv", [picked(qkv_rows, part) for part in range(3)]),
    },
    ignored=(".rotary_emb.inv_freq",),
)
