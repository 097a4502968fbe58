"""Qwen 2, 2.5 (biases on queries, keys and values) and 3 (norms of each query and key head instead).

Source: transformers' `Qwen2ForCausalLM`, `Qwen3ForCausalLM`; llama.cpp's architectures of the same names. Not covered:
their mixtures of experts, and what sees images or hears.
"""

from __future__ import annotations

from dataclasses import replace

from openherd.checkpoints.families import gguf_config, hf_config
from openherd.checkpoints.families.family import Family, Present
from openherd.checkpoints.families.key_table import KeyTable
from openherd.checkpoints.families.stems import GGUF_STEMS, QK_NORMS, as_they_are
from openherd.checkpoints.gguf_keys import Keys
from openherd.checkpoints.json_keys import JsonKeys
from openherd.checkpoints.name_table import NameTable
from openherd.config import ModelConfig
from openherd.errors import FormatError

_DEFAULTS = {
    "qwen2": hf_config.Defaults(32768, n_kv_heads=32),
    "qwen3": hf_config.Defaults(32768, n_kv_heads=32, head_dim=128),
}
_KEYS = KeyTable(frozenset(), neutral={"use_mrope": (False,)})


def _hf_config(keys: JsonKeys, present: Present, name: str) -> ModelConfig:
    (hf_config.DECODER_KEYS | hf_config.WINDOW_KEYS | _KEYS).refuse_unknown(keys)
    hf_config.require(keys, "hidden_act", "silu", "swish")
    config = hf_config.read_decoder(keys, name, present, _DEFAULTS[name])
    # Both leave windows out unless `use_sliding_window` says otherwise.
    slides = keys.truth("use_sliding_window", False)
    if not slides and "sliding_attention" in keys.texts("layer_types"):
        raise FormatError(f"{keys.path}: layer_types names sliding_attention, but use_sliding_window is not true")
    window, every = hf_config.read_window(keys, config.n_layers) if slides else (0, 0)
    return replace(config, sliding_window=window, full_attention_every=every)


def _qwen2_hf(keys: JsonKeys, present: Present) -> ModelConfig:
    return replace(_hf_config(keys, present, "qwen2"), qkv_bias=True, o_bias=False)


def _qwen3_hf(keys: JsonKeys, present: Present) -> ModelConfig:
    return replace(_hf_config(keys, present, "qwen3"), qk_norm=True)


def _qwen2_gguf(keys: Keys, present: Present) -> ModelConfig:
    gguf_config.DECODER_KEYS.refuse_unknown(keys, "qwen2.")
    return gguf_config.read_decoder(keys, "qwen2", present)


def _qwen3_gguf(keys: Keys, present: Present) -> ModelConfig:
    gguf_config.DECODER_KEYS.refuse_unknown(keys, "qwen3.")
    return replace(gguf_config.read_decoder(keys, "qwen3", present), qk_norm=True)


QWEN2 = Family(
    name="qwen2",
    shown="Qwen 2 and 2.5",
    model_types=("qwen2",),
    architecture="qwen2",
    hf_config=_qwen2_hf,
    gguf_config=_qwen2_gguf,
    names={"hf": as_they_are(*GGUF_STEMS), "gguf": NameTable(GGUF_STEMS)},
    ignored=(".rotary_emb.inv_freq",),
)
QWEN3 = Family(
    name="qwen3",
    shown="Qwen 3",
    model_types=("qwen3",),
    architecture="qwen3",
    hf_config=_qwen3_hf,
    gguf_config=_qwen3_gguf,
    names={"hf": as_they_are(*GGUF_STEMS, *QK_NORMS), "gguf": NameTable(GGUF_STEMS | QK_NORMS)},
    ignored=(".rotary_emb.inv_freq",),
)
