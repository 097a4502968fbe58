"""The keys that Hugging Face's config.json has in common between families, and the ModelConfig that they make.

A family reads its own keys beside these, and changes the config with `dataclasses.replace`. A key that is left out has
the value that transformers gives it, which differs between families (`Defaults`); null is another thing, and refused
where transformers has no meaning for it.

Source: transformers' `LlamaConfig` and `PretrainedConfig`, of versions 4 and 5.
"""

from __future__ import annotations

from dataclasses import dataclass

from openherd.checkpoints.families.family import Present
from openherd.checkpoints.families.gguf_config import MAX_CONTEXT, window_of
from openherd.checkpoints.families.hf_rope import read_rope
from openherd.checkpoints.families.key_table import KeyTable
from openherd.checkpoints.json_keys import JsonKeys
from openherd.config import ModelConfig
from openherd.errors import FormatError, UnsupportedError

# What saves say of their making, of training, and of generation (whose defaults older saves kept here).
_BOOKKEEPING = frozenset(
    {
        "_attn_implementation", "_attn_implementation_autoset", "_commit_hash", "_name_or_path", "architectures",
        "attention_dropout", "attn_pdrop", "auto_map", "bos_token_id", "dtype", "embd_pdrop", "eos_token_id",
        "finetuning_task", "gradient_checkpointing", "hidden_dropout", "id2label", "initializer_range", "is_decoder",
        "is_encoder_decoder", "is_llama_config", "label2id", "language", "license", "max_length", "max_new_tokens",
        "max_sequence_length", "min_length", "model_type", "openherd_name", "output_attentions",
        "output_hidden_states", "output_router_logits", "pad_token_id", "parallel_config", "pretraining_tp",
        "problem_type", "resid_pdrop", "return_dict", "task_specific_params", "temperature", "tokenizer_class", "top_k",
        "top_p", "torch_dtype", "torchscript", "transformers.js_config", "transformers_version", "unk_token_id",
        "unsloth_fixed", "unsloth_version", "use_bfloat16", "use_cache", "use_flash_attn",
    }
)  # fmt: skip

DECODER_KEYS = KeyTable(
    read=frozenset(
        {
            "attention_bias",
            "head_dim",
            "hidden_act",
            "hidden_size",
            "intermediate_size",
            "max_position_embeddings",
            "mlp_bias",
            "num_attention_heads",
            "num_hidden_layers",
            "num_key_value_heads",
            "rms_norm_eps",
            "rope_parameters",
            "rope_scaling",
            "rope_theta",
            "tie_word_embeddings",
            "vocab_size",
        }
    ),
    harmless=_BOOKKEEPING,
    neutral={
        "add_cross_attention": (False,),
        "chunk_size_feed_forward": (0,),
        "cross_attention_hidden_size": (),
        "is_causal": (True,),
        "partial_rotary_factor": (1.0,),
        "pruned_heads": ({},),
        "quantization_config": (),
        "rope_interleaved": (False,),
        "sliding_window": (),
        "tie_encoder_decoder": (False,),
    },
)


@dataclass(frozen=True, slots=True)
class Defaults:
    """transformers' values of keys that a family's config.json leaves out."""

    max_seq_len: int
    n_kv_heads: int | None = None  # None: as many as queries; so too where null
    head_dim: int | None = None  # None: the width over the heads
    norm_eps: float = 1e-6
    theta: float = 10000.0
    tied: bool = False
    original_context: int | None = None  # LongRoPE's, beside the scaling; None: the family has no such key


# Keys that transformers has no null for. `head_dim` is one where it has a default.
_NEVER_NULL = (
    "attention_bias", "max_position_embeddings", "mlp_bias", "original_max_position_embeddings", "rms_norm_eps",
    "rope_theta", "tie_word_embeddings",
)  # fmt: skip


def read_decoder(
    keys: JsonKeys,
    family: str,
    present: Present,
    defaults: Defaults,
    *,
    partly_rotated: bool = False,
    by_layer: bool = False,
) -> ModelConfig:
    """The config that the common keys make; unknown keys are the family's to refuse first.

    Biases are those that `attention_bias` and `mlp_bias` declare; `partly_rotated` and `by_layer` are `read_rope`'s.
    Raises FormatError for a key with a wrong value and UnsupportedError for one that openherd cannot follow.
    """
    keys.refuse_null(*_NEVER_NULL)
    dim = keys.whole("hidden_size", least=1)
    n_heads = keys.whole("num_attention_heads", least=1)
    all_heads = defaults.n_kv_heads is None or keys.is_null("num_key_value_heads")
    n_kv_heads = keys.whole("num_key_value_heads", n_heads if all_heads else defaults.n_kv_heads, least=1)
    if n_heads % n_kv_heads:
        raise FormatError(
            f"{keys.path}: num_key_value_heads is {n_kv_heads}, which must divide the {n_heads} query heads"
        )
    if keys.whole("vocab_size", present.vocab_size) != present.vocab_size:
        raise keys.wrong("vocab_size", f"must be the embedding's number of rows, {present.vocab_size}")
    max_seq_len = keys.whole("max_position_embeddings", defaults.max_seq_len, least=1, most=MAX_CONTEXT)
    original = defaults.original_context
    theta, scaling = read_rope(
        keys,
        max_seq_len,
        default_theta=defaults.theta,
        partly_rotated=partly_rotated,
        by_layer=by_layer,
        original_context=original and keys.whole("original_max_position_embeddings", original, least=1),
    )
    attention_bias = keys.truth("attention_bias", False)
    return ModelConfig(
        family=family,
        dim=dim,
        n_layers=keys.whole("num_hidden_layers", least=1),
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        head_dim=_head_dim(keys, dim, n_heads, defaults.head_dim),
        ffn_dim=keys.whole("intermediate_size", least=1),
        vocab_size=present.vocab_size,
        max_seq_len=max_seq_len,
        norm_eps=keys.positive("rms_norm_eps", defaults.norm_eps),
        rope_theta=theta,
        rope_scaling=scaling,
        tied_embeddings=keys.truth("tie_word_embeddings", defaults.tied),
        qkv_bias=attention_bias,
        o_bias=attention_bias,
        mlp_bias=keys.truth("mlp_bias", False),
    )


# Layers with a sliding window: which, and how long. Families that choose them by these keys join this to DECODER_KEYS.
WINDOW_KEYS = KeyTable(read=frozenset({"layer_types", "max_window_layers", "sliding_window", "use_sliding_window"}))

# What `sliding_window` is where it is left out, in every family that has one by default; null is none.
DEFAULT_WINDOW = 4096


def window_length(keys: JsonKeys, default: int) -> int:
    """`sliding_window`; 0 where it is null."""
    if keys.is_null("sliding_window") or (not default and "sliding_window" not in keys):
        return 0
    return keys.whole("sliding_window", default, least=1)


def read_window(keys: JsonKeys, n_layers: int, default_every: int = 0) -> tuple[int, int]:
    """(sliding_window, full_attention_every) from `layer_types`, else the family's default.

    `use_sliding_window`, where a family has it, says whether there is a window at all; `max_window_layers` layers then
    come before those that slide. Raises UnsupportedError for layers that follow no period.
    """
    if not keys.truth("use_sliding_window", True):
        return 0, 0
    window = window_length(keys, DEFAULT_WINDOW)
    types = keys.texts("layer_types")
    if types:
        if len(types) != n_layers or set(types) - {"full_attention", "sliding_attention"}:
            raise keys.wrong(
                "layer_types", f"must name full_attention or sliding_attention for each of {n_layers} layers"
            )
        slides = [name == "sliding_attention" for name in types]
        return window_of(window, slides, lambda: UnsupportedError(f"{keys.path}: layer_types follows no period"))
    first = keys.whole("max_window_layers", 28) if "use_sliding_window" in keys else 0
    if first >= n_layers:
        return 0, 0
    if first:
        raise UnsupportedError(f"{keys.path}: max_window_layers is {first}; openherd supports 0 or all of {n_layers}")
    return window, default_every if window else 0


def _head_dim(keys: JsonKeys, dim: int, n_heads: int, default: int | None) -> int:
    if default is not None:
        keys.refuse_null("head_dim")
    elif "head_dim" not in keys and dim % n_heads:
        raise keys.wrong("hidden_size", f"must be a multiple of the {n_heads} heads")
    head_dim = keys.whole("head_dim", default or dim // n_heads, least=1)
    if head_dim % 2:
        raise keys.wrong("head_dim", f"must be even to be rotated in pairs (a head has {head_dim} values)")
    return head_dim


def require(keys: JsonKeys, key: str, *allowed: str) -> None:
    """Refuse a string under `key`, where there is one, that is not among `allowed`."""
    keys.refuse_null(key)
    if keys.text(key, allowed[0]) not in allowed:
        shown = " or ".join(map(repr, allowed))
        raise UnsupportedError(f"{keys.path}: {key} is {keys.shown(key)}; openherd supports only {shown} here")
