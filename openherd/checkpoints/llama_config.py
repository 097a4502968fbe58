"""The keys of GGUF's "llama" architecture, and the ModelConfig that they make.

Every key under `llama.` is in one of three tables: it is read, it says nothing about the mathematics, or it must
have the value that changes nothing. Any other key is refused, because ignoring it could change every answer.

Source: ggml's docs/gguf.md and the behaviour of llama.cpp where the document is silent (defaults below).
"""

from __future__ import annotations

import math
from typing import Final

from openherd.checkpoints.gguf_keys import Keys
from openherd.config import ModelConfig, RopeKind, RopeScaling
from openherd.errors import UnsupportedError

ARCHITECTURE: Final = "llama"

# Keys after "llama." that `read_config` uses.
READ = frozenset(
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
)

# Keys that say how the file was made, or concern what openherd does not do with such a model.
HARMLESS = frozenset({"pooling_type", "rope.scaling.finetuned", "tensor_data_layout", "attention.layer_norm_epsilon"})

# Keys that change the mathematics, with the values at which they do not.
NEUTRAL: dict[str, tuple[object, ...]] = {
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
}

# Positions the engine counts; the longest context any family was trained for is 10,485,760 (Llama 4 Scout).
MAX_CONTEXT: Final = 1 << 24

_ROPE_KINDS: dict[str, RopeKind] = {"none": "none", "linear": "linear", "yarn": "yarn"}


def read_config(keys: Keys, *, vocab_size: int, biases: frozenset[str], tied: bool) -> ModelConfig:
    """The config of a file whose architecture is "llama".

    `biases` are the stems of layer 0's bias tensors ("q_proj", ...), `tied` whether the file lacks a separate
    output matrix: GGUF says both by the tensors it holds. Raises FormatError for a key with a wrong value and
    UnsupportedError for one that would change the mathematics.
    """
    refuse_unknown(keys)
    dim = _size(keys, "embedding_length")
    n_heads = keys.same_whole(f"{ARCHITECTURE}.attention.head_count")
    n_kv_heads = keys.same_whole(f"{ARCHITECTURE}.attention.head_count_kv", n_heads)
    if n_heads % n_kv_heads:
        raise keys.wrong(f"{ARCHITECTURE}.attention.head_count_kv", f"must divide the {n_heads} query heads")
    head_dim = _head_dim(keys, dim, n_heads)
    if keys.whole(f"{ARCHITECTURE}.vocab_size", vocab_size) != vocab_size:
        raise keys.wrong(f"{ARCHITECTURE}.vocab_size", f"must be the embedding's number of rows, {vocab_size}")
    max_seq_len = keys.whole(f"{ARCHITECTURE}.context_length", least=1, most=MAX_CONTEXT)
    return ModelConfig(
        family=ARCHITECTURE,
        dim=dim,
        n_layers=_size(keys, "block_count"),
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        head_dim=head_dim,
        ffn_dim=keys.same_whole(f"{ARCHITECTURE}.feed_forward_length"),
        vocab_size=vocab_size,
        max_seq_len=max_seq_len,
        norm_eps=_positive(keys, "attention.layer_norm_rms_epsilon"),
        rope_theta=_positive(keys, "rope.freq_base", 10000.0),
        rope_scaling=_rope_scaling(keys, max_seq_len),
        tied_embeddings=tied,
        qkv_bias=bool(biases & {"q_proj", "k_proj", "v_proj"}),
        o_bias="o_proj" in biases,
        mlp_bias=bool(biases & {"gate_proj", "up_proj", "down_proj"}),
    )


def refuse_unknown(keys: Keys) -> None:
    """Raise UnsupportedError for the first key of the architecture that is in no table, or not neutral."""
    prefix = ARCHITECTURE + "."
    for key in keys:
        name = key.removeprefix(prefix)
        if name == key or name in READ or name in HARMLESS:
            continue
        if name not in NEUTRAL:
            raise UnsupportedError(f"{keys.path}: openherd does not know the key {key}, which may change the model")
        value = keys[key]
        if not isinstance(value, bool | int | float) or value not in NEUTRAL[name]:
            allowed = " or ".join(map(repr, NEUTRAL[name]))
            raise UnsupportedError(f"{keys.path}: {key} is {keys.shown(key)}; openherd supports only {allowed}")


def _size(keys: Keys, name: str) -> int:
    return keys.whole(f"{ARCHITECTURE}.{name}", least=1)


def _positive(keys: Keys, name: str, default: float | None = None) -> float:
    key = f"{ARCHITECTURE}.{name}"
    value = keys.number(key, default)
    if value <= 0:
        raise keys.wrong(key, "must be greater than 0")
    return value


def _head_dim(keys: Keys, dim: int, n_heads: int) -> int:
    """All of a head is rotated: GGUF's order of query and key rows is defined for that alone."""
    key_length = f"{ARCHITECTURE}.attention.key_length"
    if key_length not in keys and dim % n_heads:
        raise keys.wrong(f"{ARCHITECTURE}.embedding_length", f"must be a multiple of the {n_heads} heads")
    head_dim = keys.whole(key_length, dim // n_heads, least=1)
    for name in ("attention.value_length", "rope.dimension_count"):
        key = f"{ARCHITECTURE}.{name}"
        if keys.whole(key, head_dim) != head_dim:
            raise UnsupportedError(
                f"{keys.path}: {key} is {keys.shown(key)}; openherd supports only the length of a key, {head_dim}"
            )
    if head_dim % 2:
        raise keys.wrong(key_length, f"must be even to be rotated in pairs (a head has {head_dim} values)")
    return head_dim


def _rope_scaling(keys: Keys, max_seq_len: int) -> RopeScaling:
    """Without a type a factor means linear scaling, and factor 0 none, as llama.cpp has it."""
    prefix = f"{ARCHITECTURE}.rope.scaling."
    name = keys.text(prefix + "type", "linear")
    if name not in _ROPE_KINDS:
        kinds = ", ".join(_ROPE_KINDS)
        raise UnsupportedError(f"{keys.path}: {prefix}type is {keys.shown(prefix + 'type')}; openherd supports {kinds}")
    old_factor = keys.number(f"{ARCHITECTURE}.rope.scale_linear", 0.0)
    factor = keys.number(prefix + "factor", old_factor) or 1.0
    if factor <= 0:
        raise keys.wrong(prefix + "factor", "must be greater than 0")
    if name == "yarn":
        return _yarn(keys, factor, max_seq_len)
    _require(keys, prefix + "attn_factor", 1.0)
    _require(keys, prefix + "yarn_attn_factor", 1.0)
    _require(keys, prefix + "yarn_ext_factor", -1.0, 0.0)  # a positive one turns yarn on whatever the type
    if name == "none" or factor == 1.0:
        return RopeScaling()
    return RopeScaling(kind="linear", factor=factor)


def _yarn(keys: Keys, factor: float, max_seq_len: int) -> RopeScaling:
    """`attn_factor` multiplies the temperature, which `RopeScaling` has as a whole.

    `yarn_attn_factor` is written with two meanings (the whole temperature, or nothing): it may have only the values
    at which they agree, and 1, which llama.cpp ignores.
    """
    prefix = f"{ARCHITECTURE}.rope.scaling."
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
        beta_fast=_positive(keys, "rope.scaling.yarn_beta_fast", 32.0),
        beta_slow=_positive(keys, "rope.scaling.yarn_beta_slow", 1.0),
        attention_factor=None if multiplier == 1.0 else multiplier * temperature,
    )


def _require(keys: Keys, key: str, default: float, *others: float) -> None:
    """Refuse any value of `key` but these, to the precision of float32."""
    value = keys.number(key, default)
    if not any(math.isclose(value, allowed, rel_tol=1e-6) for allowed in (default, *others)):
        allowed = " or ".join(f"{value:g}" for value in (default, *others))
        raise UnsupportedError(f"{keys.path}: {key} is {keys.shown(key)}; openherd supports only {allowed} here")
