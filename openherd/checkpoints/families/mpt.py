"""MPT 7B and 30B: ALiBi, LayerNorm without bias, queries, keys and values clipped, an ungated feed-forward.

Source: transformers' `MptForCausalLM`; MosaicML's `llm-foundry` for `logit_scale`; llama.cpp's architecture "mpt". Not
covered: learned positions instead of ALiBi, norms of queries and keys, prefix language models.
"""

from __future__ import annotations

from dataclasses import replace

from openherd.checkpoints.families import gguf_config, hf_config
from openherd.checkpoints.families.family import Family, Present
from openherd.checkpoints.families.key_table import KeyTable
from openherd.checkpoints.gguf_keys import Keys
from openherd.checkpoints.json_keys import JsonKeys
from openherd.checkpoints.name_table import NameTable, Source, picked, qkv_rows
from openherd.config import ModelConfig
from openherd.errors import UnsupportedError

NAME = "mpt"
_LAYER = "model.layers.{}."
# Canonical, Hugging Face's, GGUF's.
_STEMS = (
    ("model.embed_tokens", "transformer.wte", "token_embd"),
    ("model.norm", "transformer.norm_f", "output_norm"),
    ("lm_head", "lm_head", "output"),
    (f"{_LAYER}input_layernorm", "transformer.blocks.{}.norm_1", "blk.{}.attn_norm"),
    (f"{_LAYER}post_attention_layernorm", "transformer.blocks.{}.norm_2", "blk.{}.ffn_norm"),
    (f"{_LAYER}self_attn.o_proj", "transformer.blocks.{}.attn.out_proj", "blk.{}.attn_output"),
    (f"{_LAYER}mlp.up_proj", "transformer.blocks.{}.ffn.up_proj", "blk.{}.ffn_up"),
    (f"{_LAYER}mlp.down_proj", "transformer.blocks.{}.ffn.down_proj", "blk.{}.ffn_down"),
)
_HF_KEYS = KeyTable(
    read=frozenset(
        {
            "attn_config", "d_model", "expansion_ratio", "layer_norm_epsilon", "logit_scale", "max_seq_len", "n_heads",
            "n_layers", "no_bias", "norm_type",
        }
    ),
    harmless=frozenset(
        {
            "emb_pdrop", "embedding_fraction", "init_config", "init_device", "learned_pos_emb", "tokenizer_name",
            "verbose",
        }
    ),
    neutral={**hf_config.DECODER_KEYS.neutral, "use_norm_bias": (False,)},
) | KeyTable(hf_config.DECODER_KEYS.harmless | {"tie_word_embeddings", "vocab_size"})  # fmt: skip
_ATTENTION = "attn_config."
_ATTENTION_KEYS = KeyTable(
    read=frozenset({f"{_ATTENTION}{key}" for key in ("alibi", "alibi_bias_max", "clip_qkv", "softmax_scale")}),
    # How attention was computed in training; saves also put bookkeeping here.
    harmless=frozenset({f"{_ATTENTION}{key}" for key in {"attn_impl", "attn_pdrop"} | hf_config.DECODER_KEYS.harmless}),
    neutral={
        f"{_ATTENTION}{key}": values
        for key, values in {
            **hf_config.DECODER_KEYS.neutral,
            "attn_type": ("multihead_attention",),
            "attn_uses_sequence_id": (False,),
            "prefix_lm": (False,),
            "qk_ln": (False,),
        }.items()
    },
)
_GGUF_KEYS = KeyTable(frozenset({"attention.clamp_kqv", "attention.layer_norm_epsilon", "attention.max_alibi_bias"}))


def _as_mpt(config: ModelConfig) -> ModelConfig:
    return replace(config, norm="layer", activation="gelu", gated=False)


def _hf_config(keys: JsonKeys, present: Present) -> ModelConfig:
    _HF_KEYS.refuse_unknown(keys)
    attention = keys.section("attn_config")
    _ATTENTION_KEYS.refuse_unknown(attention)
    keys.refuse_null("expansion_ratio", "layer_norm_epsilon", "max_seq_len", "no_bias", "tie_word_embeddings")
    attention.refuse_null("attn_config.alibi", "attn_config.alibi_bias_max")
    hf_config.require(keys, "norm_type", "low_precision_layernorm", "layernorm")
    if not (attention.truth("attn_config.alibi", True) and keys.truth("no_bias", True)):
        raise UnsupportedError(f"{keys.path}: openherd runs MPT with alibi and no_bias only")
    dim, n_heads = keys.whole("d_model", least=1), keys.whole("n_heads", least=1)
    if dim % n_heads:
        raise keys.wrong("d_model", f"must be a multiple of the {n_heads} heads")
    scale = "attn_config.softmax_scale"
    return _as_mpt(
        ModelConfig(
            family=NAME,
            dim=dim,
            n_layers=keys.whole("n_layers", least=1),
            n_heads=n_heads,
            n_kv_heads=n_heads,
            head_dim=dim // n_heads,
            ffn_dim=dim * keys.whole("expansion_ratio", 4, least=1, most=64),
            vocab_size=present.vocab_size,
            max_seq_len=keys.whole("max_seq_len", 2048, least=1, most=gguf_config.MAX_CONTEXT),
            norm_eps=keys.positive("layer_norm_epsilon", 1e-5),
            tied_embeddings=keys.truth("tie_word_embeddings", True),
            attention_scale=attention.positive(scale) if scale in attention else None,
            logit_scale=_logit_scale(keys, dim),
            clip_qkv=attention.number("attn_config.clip_qkv", 0.0),
            alibi_max_bias=attention.positive("attn_config.alibi_bias_max", 8.0),
        )
    )


def _logit_scale(keys: JsonKeys, dim: int) -> float:
    if "logit_scale" not in keys:
        return 1.0
    return dim**-0.5 if keys["logit_scale"] == "inv_sqrt_d_model" else keys.positive("logit_scale")


def _gguf_config(keys: Keys, present: Present) -> ModelConfig:
    (gguf_config.DECODER_KEYS | _GGUF_KEYS).refuse_unknown(keys, f"{NAME}.")
    alibi = keys.number(f"{NAME}.attention.max_alibi_bias", 0.0)
    if alibi <= 0:
        raise UnsupportedError(
            f"{keys.path}: openherd runs MPT with ALiBi only; {NAME}.attention.max_alibi_bias is not set"
        )
    config = gguf_config.read_decoder(keys, NAME, present, epsilon="attention.layer_norm_epsilon")
    clip = keys.number(f"{NAME}.attention.clamp_kqv", 0.0)
    if clip < 0:
        raise keys.wrong(f"{NAME}.attention.clamp_kqv", "must be greater than 0")
    return replace(_as_mpt(config), clip_qkv=clip, alibi_max_bias=alibi)


def _names(layout: int, qkv: str) -> NameTable:
    fused = {f"{_LAYER}self_attn.{name}_proj": Source(qkv, picked(qkv_rows, i)) for i, name in enumerate("qkv")}
    return NameTable({**{stems[0]: stems[layout] for stems in _STEMS}, **fused})


MPT = Family(
    name=NAME,
    shown="MPT 7B and 30B",
    model_types=(NAME,),
    architecture=NAME,
    hf_config=_hf_config,
    gguf_config=_gguf_config,
    names={"hf": _names(1, "transformer.blocks.{}.attn.Wqkv"), "gguf": _names(2, "blk.{}.attn_qkv")},
)
