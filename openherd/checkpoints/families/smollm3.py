"""SmolLM 3: Llama's form, of which every fourth layer is not rotated.

Source: transformers' `SmolLM3ForCausalLM`; llama.cpp's architecture "smollm3", which has the interval built in.
"""

from __future__ import annotations

from dataclasses import replace

from openherd.checkpoints.families import gguf_config, hf_config
from openherd.checkpoints.families.family import Family, Present
from openherd.checkpoints.families.key_table import KeyTable
from openherd.checkpoints.families.stems import GGUF_STEMS, as_they_are
from openherd.checkpoints.gguf_keys import Keys
from openherd.checkpoints.json_keys import JsonKeys
from openherd.checkpoints.name_table import NameTable
from openherd.config import ModelConfig
from openherd.errors import UnsupportedError

NAME = "smollm3"
_INTERVAL = 4
_DEFAULTS = hf_config.Defaults(32768, n_kv_heads=4, theta=2e6, tied=True)
_KEYS = KeyTable(
    read=frozenset({"layer_types", "no_rope_layer_interval", "no_rope_layers"}),
    harmless=frozenset({"max_window_layers", "sliding_window"}),  # of `use_sliding_window`
    neutral={"use_sliding_window": (False,)},
)


def _hf_config(keys: JsonKeys, present: Present) -> ModelConfig:
    (hf_config.DECODER_KEYS | _KEYS).refuse_unknown(keys)
    hf_config.require(keys, "hidden_act", "silu", "swish")
    if set(keys.texts("layer_types")) - {"full_attention"}:
        raise UnsupportedError(f"{keys.path}: layer_types of SmolLM 3 may only be full_attention")
    config = hf_config.read_decoder(keys, NAME, present, _DEFAULTS)
    every = keys.whole("no_rope_layer_interval", _INTERVAL, least=1)
    rotated = keys.wholes("no_rope_layers", most=1)  # 1: the layer is rotated
    if rotated and rotated != tuple(int((layer + 1) % every != 0) for layer in range(config.n_layers)):
        every = next((layer + 1 for layer, turns in enumerate(rotated) if not turns), 0)
        if rotated != tuple(int(not every or (layer + 1) % every != 0) for layer in range(config.n_layers)):
            raise UnsupportedError(f"{keys.path}: no_rope_layers follows no period over {config.n_layers} layers")
    return replace(config, no_rope_every=every)


def _gguf_config(keys: Keys, present: Present) -> ModelConfig:
    gguf_config.DECODER_KEYS.refuse_unknown(keys, f"{NAME}.")
    return replace(gguf_config.read_decoder(keys, NAME, present), no_rope_every=_INTERVAL)


SMOLLM3 = Family(
    name=NAME,
    shown="SmolLM 3",
    model_types=(NAME,),
    architecture=NAME,
    hf_config=_hf_config,
    gguf_config=_gguf_config,
    names={"hf": as_they_are(*GGUF_STEMS), "gguf": NameTable(GGUF_STEMS)},
    interleaved=frozenset({"gguf"}),
    ignored=(".rotary_emb.inv_freq",),
)
