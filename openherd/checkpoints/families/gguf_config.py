"""The keys that GGUF's architectures have in common, and the ModelConfig that they make.

A family reads its own keys beside these, and changes the config with `dataclasses.replace`.

Source: ggml's docs/gguf.md and the behaviour of llama.cpp where the document is silent (defaults below).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from openherd.checkpoints.families.family import Present
from openherd.checkpoints.families.key_table import KeyTable
from openherd.checkpoints.gguf_keys import Keys
from openherd.config import ModelConfig, RopeKind, RopeScaling
from openherd.errors import UnsupportedError

# Keys after the name of the architecture and its dot.
DECODER_KEYS = KeyTable(
    read=frozenset(
        {
            "attention.head_count",
            "attention.head_count_kv",
            "attention.key_length",
            "attention.layer_norm_rms_epsilon",
            "attention.value_length",
            "block_count",
            "context_length",
            "embedding_length",
            "feed_forward_length",
            "rope.dimension_count",
            "rope.freq_base",
            "rope.scale_linear",
            "rope.scaling.attn_factor",
            "rope.scaling.factor",
            "rope.scaling.original_context_length",
            "rope.scaling.type",
            "rope.scaling.yarn_attn_factor",
            "rope.scaling.yarn_beta_fast",
            "rope.scaling.yarn_beta_slow",
            "rope.scaling.yarn_ext_factor",
            "vocab_size",
        }
    ),
    # How the file was made, or what openherd does not do with such a model.
    harmless=frozenset(
        {"pooling_type", "rope.scaling.finetuned", "tensor_data_layout", "attention.layer_norm_epsilon"}
    ),
    neutral={
        "attention.causal": (True,),
        "attention.clamp_kqv": (0.0,),
        "attention.max_alibi_bias": (0.0,),
        "attention.scale": (0.0,),
        "attention.sliding_window": (0,),
        "attn_logit_softcapping": (0.0,),
        "embedding_scale": (0.0, 1.0),
        "expert_count": (0,),
        "expert_used_count": (0,),
        "final_logit_softcapping": (0.0,),
        "logit_scale": (0.0, 1.0),
        "residual_scale": (0.0, 1.0),
        "rope.scaling.alpha": (0.0,),
        "rope.scaling.yarn_log_multiplier": (0.0,),
        "use_parallel_residual": (False,),
    },
)

# Positions the engine counts; the longest context any family was trained for is 10,485,760 (Llama 4 Scout).
MAX_CONTEXT: Final = 1 << 24

_ROPE_KINDS: dict[str, RopeKind] = {"none": "none", "linear": "linear", "yarn": "yarn"}


def read_decoder(
    keys: Keys,
    arch: str,
    present: Present,
    *,
    epsilon: str = "attention.layer_norm_rms_epsilon",
    partly_rotated: bool = False,
) -> ModelConfig:
    """The config that the common keys of the architecture `arch` make; unknown keys are the family's to refuse first.

    `partly_rotated`: a head may have dimensions that do not turn.
    Raises FormatError for a key with a wrong value and UnsupportedError for one that openherd cannot follow.
    """
    dim = _size(keys, arch, "embedding_length")
    n_heads = keys.same_whole(f"{arch}.attention.head_count")
    n_kv_heads = keys.same_whole(f"{arch}.attention.head_count_kv", n_heads)
    if n_heads % n_kv_heads:
        raise keys.wrong(f"{arch}.attention.head_count_kv", f"must divide the {n_heads} query heads")
    head_dim, rope_dim = _head_dims(keys, arch, dim, n_heads, partly_rotated)
    if keys.whole(f"{arch}.vocab_size", present.vocab_size) != present.vocab_size:
        raise keys.wrong(f"{arch}.vocab_size", f"must be the embedding's number of rows, {present.vocab_size}")
    max_seq_len = keys.whole(f"{arch}.context_length", least=1, most=MAX_CONTEXT)
    return ModelConfig(
        family=arch,
        dim=dim,
        n_layers=_size(keys, arch, "block_count"),
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        head_dim=head_dim,
        ffn_dim=keys.same_whole(f"{arch}.feed_forward_length"),
        vocab_size=present.vocab_size,
        max_seq_len=max_seq_len,
        norm_eps=_positive(keys, arch, epsilon),
        rope_theta=_positive(keys, arch, "rope.freq_base", 10000.0),
        rope_dim=0 if rope_dim == head_dim else rope_dim,
        rope_scaling=_rope_scaling(keys, arch, max_seq_len),
        tied_embeddings=present.tied,
        qkv_bias=present.has_bias("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        o_bias=present.has_bias("self_attn.o_proj"),
        mlp_bias=present.has_bias("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
    )


def _size(keys: Keys, arch: str, name: str) -> int:
    return keys.whole(f"{arch}.{name}", least=1)


def _positive(keys: Keys, arch: str, name: str, default: float | None = None) -> float:
    return keys.positive(f"{arch}.{name}", default)


def read_window(keys: Keys, arch: str, default_every: int, default_window: int) -> tuple[int, int]:
    """(sliding_window, full_attention_every): the pattern is a period, or a list that says which layers slide.

    A window of 0 is none, where a file that is silent has none; where it has one, 0 would hide everything.
    """
    window = keys.whole(f"{arch}.attention.sliding_window", default_window, least=1 if default_window else 0)
    pattern = f"{arch}.attention.sliding_window_pattern"
    if pattern in keys and isinstance(keys[pattern], np.ndarray):
        flags = keys.numbers(pattern, "biu", keys.whole(f"{arch}.block_count", least=1))
        slides = [bool(layer) for layer in flags]
        return window_of(window, slides, lambda: keys.wrong(pattern, "must repeat with each layer of full attention"))
    return window, keys.whole(pattern, default_every) if window else 0


def window_of(window: int, slides: Sequence[bool], refusal: Callable[[], Exception]) -> tuple[int, int]:
    """(sliding_window, full_attention_every) of a list that says of each layer whether it slides.

    Raises what `refusal` makes when layers of full attention do not come in a period.
    """
    if not window or not any(slides):
        return 0, 0
    if all(slides):
        return window, 0
    every = list(slides).index(False) + 1
    if any(slide != bool((layer + 1) % every) for layer, slide in enumerate(slides)):
        raise refusal()
    return window, every


def _head_dims(keys: Keys, arch: str, dim: int, n_heads: int, partly_rotated: bool) -> tuple[int, int]:
    """(of a head, of its rotation). Interleaved rows of queries and keys are defined for heads that turn whole."""
    key_length = f"{arch}.attention.key_length"
    if key_length not in keys and dim % n_heads:
        raise keys.wrong(f"{arch}.embedding_length", f"must be a multiple of the {n_heads} heads")
    head_dim = keys.whole(key_length, dim // n_heads, least=1)
    rope_dim = keys.whole(f"{arch}.rope.dimension_count", head_dim, least=1)
    for name in ("attention.value_length", "rope.dimension_count"):
        key = f"{arch}.{name}"
        if partly_rotated and name == "rope.dimension_count" and rope_dim <= head_dim:
            continue
        if keys.whole(key, head_dim) != head_dim:
            raise UnsupportedError(
                f"{keys.path}: {key} is {keys.shown(key)}; openherd supports only the length of a key, {head_dim}"
            )
    if rope_dim % 2:
        raise keys.wrong(key_length, f"must be even to be rotated in pairs (a head has {head_dim} values)")
    return head_dim, rope_dim


def _rope_scaling(keys: Keys, arch: str, max_seq_len: int) -> RopeScaling:
    """Without a type a factor means linear scaling, and factor 0 none, as llama.cpp has it."""
    prefix = f"{arch}.rope.scaling."
    name = keys.text(prefix + "type", "linear")
    if name not in _ROPE_KINDS:
        kinds = ", ".join(_ROPE_KINDS)
        raise UnsupportedError(f"{keys.path}: {prefix}type is {keys.shown(prefix + 'type')}; openherd supports {kinds}")
    old_factor = keys.number(f"{arch}.rope.scale_linear", 0.0)
    factor = keys.number(prefix + "factor", old_factor) or 1.0
    if factor <= 0:
        raise keys.wrong(prefix + "factor", "must be greater than 0")
    if name == "yarn":
        return _yarn(keys, arch, factor, max_seq_len)
    _require(keys, prefix + "attn_factor", 1.0)
    _require(keys, prefix + "yarn_attn_factor", 1.0)
    _require(keys, prefix + "yarn_ext_factor", -1.0, 0.0)  # a positive one turns yarn on whatever the type
    if name == "none" or factor == 1.0:
        return RopeScaling()
    return RopeScaling(kind="linear", factor=factor)


def _yarn(keys: Keys, arch: str, factor: float, max_seq_len: int) -> RopeScaling:
    """`attn_factor` multiplies the temperature, which `RopeScaling` has as a whole.

    `yarn_attn_factor` is written with two meanings (the whole temperature, or nothing): it may have only the values
    at which they agree, and 1, which llama.cpp ignores.
    """
    prefix = f"{arch}.rope.scaling."
    if factor < 1:
        raise keys.wrong(prefix + "factor", "must be at least 1 for yarn")
    temperature = 0.1 * math.log(factor) + 1.0
    multiplier = keys.number(prefix + "attn_factor", 1.0)
    _require(keys, prefix + "yarn_attn_factor", 1.0, temperature)
    _require(keys, prefix + "yarn_ext_factor", -1.0, 1.0)  # -1: not set
    return RopeScaling(
        kind="yarn",
        factor=factor,
        original_max_seq_len=keys.whole(prefix + "original_context_length", max_seq_len, least=1),
        beta_fast=_positive(keys, arch, "rope.scaling.yarn_beta_fast", 32.0),
        beta_slow=_positive(keys, arch, "rope.scaling.yarn_beta_slow", 1.0),
        attention_factor=None if multiplier == 1.0 else multiplier * temperature,
    )


def _require(keys: Keys, key: str, default: float, *others: float) -> None:
    """Refuse any value of `key` but these, to the precision of float32."""
    value = keys.number(key, default)
    if not any(math.isclose(value, allowed, rel_tol=1e-6) for allowed in (default, *others)):
        allowed = " or ".join(f"{value:g}" for value in (default, *others))
        raise UnsupportedError(f"{keys.path}: {key} is {keys.shown(key)}; openherd supports only {allowed} here")
