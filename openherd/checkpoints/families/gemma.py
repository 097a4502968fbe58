"""Gemma 2 and 3, text: norms around both halves of a layer, alternating windows, soft caps (2), norms of heads (3).

Hugging Face's norm weights multiply by 1 + weight; GGUF has the one added in, and so have the canonical tensors.

Source: transformers' `Gemma2ForCausalLM`, `Gemma3ForCausalLM`; llama.cpp's architectures "gemma2" and "gemma3". Not
covered: Gemma 1 and 3n, images, attention to both sides.
"""

from __future__ import annotations

from dataclasses import replace

from openherd.checkpoints.families import gguf_config, hf_config
from openherd.checkpoints.families.family import Family, Present
from openherd.checkpoints.families.hf_rope import local_theta
from openherd.checkpoints.families.key_table import KeyTable
from openherd.checkpoints.families.stems import GGUF_STEMS, QK_NORMS
from openherd.checkpoints.gguf_keys import Keys
from openherd.checkpoints.json_keys import JsonKeys
from openherd.checkpoints.name_table import NameTable, Source
from openherd.config import ModelConfig
from openherd.errors import UnsupportedError

_NORMS = {
    "model.layers.{}.post_attention_layernorm": "blk.{}.post_attention_norm",
    "model.layers.{}.pre_feedforward_layernorm": "blk.{}.ffn_norm",
    "model.layers.{}.post_feedforward_layernorm": "blk.{}.post_ffw_norm",
}
_GEMMA2 = GGUF_STEMS | _NORMS
_GEMMA3 = _GEMMA2 | QK_NORMS
# Every second layer of Gemma 2 and every sixth of Gemma 3 sees everything.
_EVERY = {"gemma2": 2, "gemma3": 6}
# Soft caps of Gemma 2's attention and logits, and windows, of files that say nothing of them.
_CAPS = (50.0, 30.0)
_GGUF_WINDOWS = {"gemma2": 4096, "gemma3": 0}
# Layers of the 27B models, whose scores are scaled by what a head has of the width, not by its length.
_SCALED_BY_WIDTH = {"gemma2": 46, "gemma3": 62}

_DEFAULTS = {
    "gemma2": hf_config.Defaults(8192, n_kv_heads=4, head_dim=256, tied=True),
    "gemma3": hf_config.Defaults(131072, n_kv_heads=4, head_dim=256, theta=1e6, tied=True),
}
_HF_KEYS = KeyTable(
    read=frozenset(
        {
            "attn_logit_softcapping", "final_logit_softcapping", "hidden_activation", "layer_types",
            "query_pre_attn_scalar", "sliding_window",
        }
    ),
    harmless=frozenset({"_sliding_window_pattern", "cache_implementation"}),  # layer_types stands beside the first
    neutral={"sliding_window_pattern": (2,), "use_bidirectional_attention": (False,)},  # the pattern is Gemma 3's
)  # fmt: skip
_HF_GEMMA3_KEYS = KeyTable(frozenset({"rope_local_base_freq", "sliding_window_pattern"}))
_GGUF_KEYS = KeyTable(
    read=frozenset(
        {
            "attention.scale", "attention.sliding_window", "attention.sliding_window_pattern", "attn_logit_softcapping",
            "final_logit_softcapping", "rope.freq_base_swa",
        }
    )
)  # fmt: skip


def _as_gemma(config: ModelConfig) -> ModelConfig:
    return replace(
        config,
        post_norms=True,
        qk_norm=config.family == "gemma3",
        activation="gelu_tanh",
        embedding_scale=config.dim**0.5,
    )


def _hf_config(keys: JsonKeys, present: Present, name: str, attention_cap: float, logit_cap: float) -> ModelConfig:
    """The caps are those of files that leave them out; null is none."""
    keys.refuse_null("num_key_value_heads", "query_pre_attn_scalar", "sliding_window", "sliding_window_pattern")
    for key in ("hidden_activation", "hidden_act"):
        if key == "hidden_activation" or key in keys:
            hf_config.require(keys, key, "gelu_pytorch_tanh")
    by_layer = name == "gemma3"
    config = _as_gemma(hf_config.read_decoder(keys, name, present, _DEFAULTS[name], by_layer=by_layer))
    every = keys.whole("sliding_window_pattern", _EVERY[name], least=1)
    window, every = hf_config.read_window(keys, config.n_layers, every)
    caps = ("attn_logit_softcapping", attention_cap), ("final_logit_softcapping", logit_cap)
    attention_softcap, logit_softcap = (_cap(keys, key, 0.0 if keys.is_null(key) else cap) for key, cap in caps)
    return replace(
        config,
        attention_scale=keys.positive("query_pre_attn_scalar", 256.0) ** -0.5,
        attention_softcap=attention_softcap,
        logit_softcap=logit_softcap,
        sliding_window=0 if every == 1 else window,
        full_attention_every=0 if every == 1 else every,
    )


def _cap(keys: Keys, key: str, default: float) -> float:
    """0: no cap."""
    value = keys.number(key, default)
    if value < 0:
        raise keys.wrong(key, "must be greater than 0")
    return value


def _gemma2_hf(keys: JsonKeys, present: Present) -> ModelConfig:
    (hf_config.DECODER_KEYS | _HF_KEYS).refuse_unknown(keys)
    return _hf_config(keys, present, "gemma2", *_CAPS)


def _gemma3_hf(keys: JsonKeys, present: Present) -> ModelConfig:
    (hf_config.DECODER_KEYS | _HF_KEYS | _HF_GEMMA3_KEYS).refuse_unknown(keys)
    config = _hf_config(keys, present, "gemma3", 0.0, 0.0)
    local = local_theta(keys, default=10000.0)
    return replace(config, local_rope_theta=local if config.sliding_window else 0.0)


def _gguf_config(keys: Keys, present: Present, name: str, attention_cap: float, logit_cap: float) -> ModelConfig:
    """The caps are those of files that give none, as llama.cpp has them."""
    (gguf_config.DECODER_KEYS | _GGUF_KEYS).refuse_unknown(keys, f"{name}.")
    config = _as_gemma(gguf_config.read_decoder(keys, name, present))
    window, every = gguf_config.read_window(keys, name, _EVERY[name], _GGUF_WINDOWS[name])
    scale = keys.number(f"{name}.attention.scale", 0.0)
    if not scale and config.n_layers == _SCALED_BY_WIDTH[name]:
        scale = (config.dim / config.n_heads) ** -0.5
    return replace(
        config,
        attention_scale=scale or config.head_dim**-0.5,
        attention_softcap=_cap(keys, f"{name}.attn_logit_softcapping", attention_cap),
        logit_softcap=_cap(keys, f"{name}.final_logit_softcapping", logit_cap),
        sliding_window=window,
        full_attention_every=every,
    )


def _gemma2_gguf(keys: Keys, present: Present) -> ModelConfig:
    config = _gguf_config(keys, present, "gemma2", *_CAPS)
    local = keys.positive("gemma2.rope.freq_base_swa", config.rope_theta)
    if local == config.rope_theta or not config.sliding_window:
        return config
    if config.rope_scaling.kind != "none":
        raise UnsupportedError(f"{keys.path}: gemma2.rope.freq_base_swa beside a rope scaling is not supported")
    return replace(config, local_rope_theta=local)


def _gemma3_gguf(keys: Keys, present: Present) -> ModelConfig:
    config = _gguf_config(keys, present, "gemma3", 0.0, 0.0)
    local = keys.positive("gemma3.rope.freq_base_swa", 10000.0)
    return replace(config, local_rope_theta=local if config.sliding_window else 0.0)


def _hf_names(stems: dict[str, str]) -> NameTable:
    return NameTable({stem: Source(stem, added=1.0) if stem.endswith("norm") else Source(stem) for stem in stems})


GEMMA2 = Family(
    name="gemma2",
    shown="Gemma 2",
    model_types=("gemma2",),
    architecture="gemma2",
    hf_config=_gemma2_hf,
    gguf_config=_gemma2_gguf,
    names={"hf": _hf_names(_GEMMA2), "gguf": NameTable(_GEMMA2)},
    ignored=(".rotary_emb.inv_freq",),
)
GEMMA3 = Family(
    name="gemma3",
    shown="Gemma 3, text",
    model_types=("gemma3_text",),
    architecture="gemma3",
    hf_config=_gemma3_hf,
    gguf_config=_gemma3_gguf,
    names={"hf": _hf_names(_GEMMA3), "gguf": NameTable(_GEMMA3)},
    ignored=(".rotary_emb.inv_freq",),
)
