"""Phi-3 and 3.5 (mini and medium): fused maps, heads that may turn in part, and LongRoPE's two lists of divisors.

Source: transformers' `Phi3ForCausalLM`; llama.cpp's architecture "phi3". llama.cpp leaves out the sliding window that
transformers applies; here it is applied.
"""

from __future__ import annotations

from dataclasses import replace

from openherd.checkpoints.families import gguf_config, hf_config
from openherd.checkpoints.families.family import Family, Present
from openherd.checkpoints.families.hf_rope import rotary_fraction
from openherd.checkpoints.families.key_table import KeyTable
from openherd.checkpoints.families.stems import GGUF_STEMS
from openherd.checkpoints.gguf_keys import Keys
from openherd.checkpoints.json_keys import JsonKeys
from openherd.checkpoints.name_table import NameTable, Source, picked, qkv_rows
from openherd.config import ModelConfig, RopeScaling
from openherd.errors import UnsupportedError

NAME = "phi3"
_HF_KEYS = KeyTable(
    read=frozenset({"original_max_position_embeddings", "partial_rotary_factor", "sliding_window"}),
)
_DEFAULTS = hf_config.Defaults(4096, norm_eps=1e-5, original_context=4096)
_GGUF_KEYS = KeyTable(frozenset({"attention.sliding_window"}))
# `rope.scaling.attn_factor` stands in files with two lists of divisors, and means the temperature there.
_LONGROPE = f"{NAME}.rope.scaling.attn_factor"


def _gate_up(config: ModelConfig) -> tuple[int, int]:
    return config.ffn_dim, config.ffn_dim


def _names(stems: dict[str, str], qkv: str, gate_up: str) -> NameTable:
    fused = {
        f"model.layers.{{}}.self_attn.{name}_proj": Source(qkv, picked(qkv_rows, i)) for i, name in enumerate("qkv")
    }
    halves = {f"model.layers.{{}}.mlp.{name}": Source(gate_up, picked(_gate_up, i)) for i, name in enumerate(_GATE_UP)}
    return NameTable({**stems, **fused, **halves})


_GATE_UP = ("gate_proj", "up_proj")


def _hf_config(keys: JsonKeys, present: Present) -> ModelConfig:
    (hf_config.DECODER_KEYS | _HF_KEYS).refuse_unknown(keys)
    hf_config.require(keys, "hidden_act", "silu", "swish")
    config = hf_config.read_decoder(keys, NAME, present, _DEFAULTS, partly_rotated=True)
    if config.rope_scaling.kind not in ("none", "longrope"):
        raise UnsupportedError(f"{keys.path}: rope scaling {config.rope_scaling.kind!r} is not defined for Phi-3")
    rope_dim = int(config.head_dim * rotary_fraction(keys))
    if rope_dim % 2 or not 0 < rope_dim <= config.head_dim:
        raise keys.wrong(
            "partial_rotary_factor", f"must leave an even number of a head's {config.head_dim} values to turn"
        )
    rope_dim = 0 if rope_dim == config.head_dim else rope_dim
    return replace(config, sliding_window=hf_config.window_length(keys, 0), rope_dim=rope_dim)


def _gguf_config(keys: Keys, present: Present) -> ModelConfig:
    (gguf_config.DECODER_KEYS | _GGUF_KEYS).refuse_unknown(keys, f"{NAME}.")
    longrope = _LONGROPE in keys and f"{NAME}.rope.scaling.type" not in keys
    common = keys.without(_LONGROPE) if longrope else keys
    config = gguf_config.read_decoder(common, NAME, present, partly_rotated=True)
    config = replace(config, sliding_window=keys.whole(f"{NAME}.attention.sliding_window", 0))
    if not longrope:
        return config
    original = keys.whole(f"{NAME}.rope.scaling.original_context_length", config.max_seq_len, least=1)
    scaling = RopeScaling(
        "longrope",
        factor=config.max_seq_len / original,
        original_max_seq_len=original,
        attention_factor=keys.positive(_LONGROPE),
    )
    return replace(config, rope_scaling=scaling)  # the lists are tensors: `gguf` puts them in


PHI3 = Family(
    name=NAME,
    shown="Phi-3 and Phi-3.5, mini and medium",
    model_types=(NAME,),
    architecture=NAME,
    hf_config=_hf_config,
    gguf_config=_gguf_config,
    names={
        "hf": _names(
            {stem: stem for stem in GGUF_STEMS},
            "model.layers.{}.self_attn.qkv_proj",
            "model.layers.{}.mlp.gate_up_proj",
        ),
        "gguf": _names(GGUF_STEMS, "blk.{}.attn_qkv", "blk.{}.ffn_up"),
    },
    ignored=(".rotary_emb.inv_freq",),
)
