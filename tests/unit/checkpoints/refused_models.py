"""GGUF files with sound headers that openherd must not run: what is changed, the error and its message."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from openherd.errors import FormatError, HerdError, UnsupportedError
from tests.checkpoint_files import VOCAB, Encoded, GGUFFile, array, entry, f32, text, texts, truth, u32

Change: TypeAlias = Callable[[GGUFFile], object]


def key(name: str, value: Encoded | None) -> Change:
    def change(file: GGUFFile) -> None:
        file.keys.pop(name, None)
        if value is not None:
            file.keys[name] = value

    return change


def tensor(name: str, values: np.ndarray, type_name: str = "F32") -> Change:
    return lambda file: file.without(name).tensors.append(entry(name, values, type_name))


ONES = np.ones
REFUSED: dict[str, tuple[Change, type[HerdError], str]] = {
    "no architecture": (key("general.architecture", None), FormatError, "the key general.architecture is missing"),
    "another": (
        key("general.architecture", text("mamba")),
        UnsupportedError,
        "architecture 'mamba'; openherd runs 'llama'",
    ),
    "long name": (
        key("general.architecture", text("m" * 5000)),
        UnsupportedError,
        r"architecture 'm{77}\.\.\.'; openherd",
    ),
    "wrong type": (key("general.architecture", u32(3)), FormatError, "general.architecture must be a string, not 3"),
    "an adapter": (key("general.type", text("adapter")), UnsupportedError, r"holds a GGUF 'adapter' \(general.type\)"),
    "experts": (key("llama.expert_count", u32(8)), FormatError, "llama.expert_used_count is missing"),
    "a heap of experts": (key("llama.expert_count", u32(1 << 20)), FormatError, "a whole number from 0 to 1024"),
    "logit scale": (
        key("llama.logit_scale", f32(0.5)),
        UnsupportedError,
        "llama.logit_scale is 0.5; openherd supports",
    ),
    "scale by NaN": (key("llama.logit_scale", f32(float("nan"))), UnsupportedError, "llama.logit_scale is nan"),
    "not causal": (
        key("llama.attention.causal", truth(0)),
        UnsupportedError,
        "attention.causal is False; .* only True",
    ),
    "unknown key": (key("llama.attention.new", u32(1)), UnsupportedError, "does not know the key llama.attention.new"),
    "longrope": (
        key("llama.rope.scaling.type", text("longrope")),
        UnsupportedError,
        "'longrope'; openherd supports none, linear, yarn",
    ),
    "linear that extrapolates": (
        key("llama.rope.scaling.yarn_ext_factor", f32(1)),
        UnsupportedError,
        "yarn_ext_factor is 1.0; openherd supports only -1 or 0 here",
    ),
    "yarn that shrinks": (
        lambda f: f.keys.update({"llama.rope.scaling.type": text("yarn"), "llama.rope.scaling.factor": f32(0.5)}),
        FormatError,
        "rope.scaling.factor must be at least 1 for yarn, not 0.5",
    ),
    "yarn that does not": (
        lambda f: f.keys.update(
            {"llama.rope.scaling.type": text("yarn"), "llama.rope.scaling.yarn_ext_factor": f32(0)}
        ),
        UnsupportedError,
        "yarn_ext_factor is 0.0; openherd supports only -1 or 1 here",
    ),
    "yarn's other temperature": (
        lambda f: f.keys.update(
            {
                "llama.rope.scaling.type": text("yarn"),
                "llama.rope.scaling.factor": f32(4),
                "llama.rope.scaling.yarn_attn_factor": f32(1.5),
            }
        ),
        UnsupportedError,
        "yarn_attn_factor is 1.5; openherd supports only 1 or 1.13863 here",
    ),
    "attention factor": (
        key("llama.rope.scaling.attn_factor", f32(2)),
        UnsupportedError,
        "attn_factor is 2.0; openherd supports only 1 here",
    ),
    "factor -1": (key("llama.rope.scaling.factor", f32(-1)), FormatError, "factor must be greater than 0, not -1.0"),
    "part rotated": (key("llama.rope.dimension_count", u32(4)), UnsupportedError, "dimension_count is 4; .* a key, 8"),
    "values shorter": (key("llama.attention.value_length", u32(4)), UnsupportedError, "value_length is 4"),
    "odd head": (key("llama.attention.key_length", u32(7)), FormatError, "must be even"),
    "no layers": (key("llama.block_count", u32(0)), FormatError, "block_count must be a whole number from 1 to"),
    "2^31 layers": (key("llama.block_count", u32(2**31)), FormatError, "block_count must be a whole number from 1 to"),
    "one layer more": (key("llama.block_count", u32(3)), FormatError, r"tensor blk.2.attn_norm.weight is missing"),
    "one layer less": (key("llama.block_count", u32(1)), UnsupportedError, r"tensor blk\.1\.\w+\.weight is not part"),
    "no eps": (key("llama.attention.layer_norm_rms_epsilon", None), FormatError, "layer_norm_rms_epsilon is missing"),
    "eps 0": (key("llama.attention.layer_norm_rms_epsilon", f32(0)), FormatError, "must be greater than 0, not 0.0"),
    "eps infinite": (
        key("llama.attention.layer_norm_rms_epsilon", f32(float("inf"))),
        FormatError,
        "must be a finite number, not inf",
    ),
    "theta a string": (
        key("llama.rope.freq_base", text("x")),
        FormatError,
        "freq_base must be a finite number, not 'x'",
    ),
    "heads a float": (
        key("llama.attention.head_count", f32(4)),
        FormatError,
        "head_count must be a whole number .* not 4.0",
    ),
    "heads a truth": (key("llama.attention.head_count", truth(1)), FormatError, "must be a whole number .* not True"),
    "heads do not divide": (key("llama.attention.head_count", u32(5)), FormatError, "head_count_kv must divide the 5"),
    "key heads do not divide": (
        key("llama.attention.head_count_kv", u32(3)),
        FormatError,
        "must divide the 4 query heads",
    ),
    "other vocabulary": (key("llama.vocab_size", u32(51)), FormatError, "number of rows, 50, not 51"),
    "quantisation 1": (key("general.quantization_version", u32(1)), UnsupportedError, "quantization_version is 1"),
    "no embedding": (
        lambda f: f.without("token_embd.weight"),
        FormatError,
        "token_embd.weight is missing or not a matrix",
    ),
    "flat embedding": (
        tensor("token_embd.weight", ONES(64, np.float32)),
        FormatError,
        "token_embd.weight is missing or not",
    ),
    "no norm": (lambda f: f.without("output_norm.weight"), FormatError, "the tensor output_norm.weight is missing"),
    "wrong shape": (
        tensor("blk.0.attn_q.weight", ONES((32, 64), np.float32)),
        FormatError,
        r"shape \(32, 64\), but the keys ask for \(32, 32\)",
    ),
    "extra bias": (
        tensor("blk.1.attn_q.bias", ONES(32, np.float32)),
        UnsupportedError,
        "blk.1.attn_q.bias is not part of",
    ),
    "bias of q alone": (
        tensor("blk.0.attn_q.bias", ONES(32, np.float32)),
        FormatError,
        r"blk.0.attn_k.bias is missing",
    ),
    "norm of queries": (
        tensor("blk.0.attn_q_norm.weight", ONES(8, np.float32)),
        UnsupportedError,
        "attn_q_norm.weight is not part",
    ),
    "quantised norm": (
        tensor("output_norm.weight", ONES(32, np.float32), "Q8_0"),
        UnsupportedError,
        "type Q8_0; a vector must be plain",
    ),
    "rope factor 0": (
        tensor("rope_freqs.weight", np.zeros(4, np.float32)),
        FormatError,
        "finite numbers greater than 0",
    ),
    "rope factors of 3": (
        tensor("rope_freqs.weight", ONES(3, np.float32)),
        FormatError,
        r"must be F32 of shape \(4,\)",
    ),
    "one of three parts": (
        key("split.count", u32(3)),
        UnsupportedError,
        "one of 3 parts of a model, but is not named NAME-00001-of-00003.gguf",
    ),
    "parts a string": (key("split.count", text("3")), FormatError, "split.count must be a whole number"),
    "too many parts": (key("split.count", u32(5000)), FormatError, "split.count is 5000; at most 1024"),
    "no tokenizer": (
        key("tokenizer.ggml.model", None),
        UnsupportedError,
        "tokenizer.ggml.model is None; openherd builds 'gpt2' and 'llama'",
    ),
    "other tokenizer": (
        key("tokenizer.ggml.model", text("t5")),
        UnsupportedError,
        "model is 't5'; openherd builds 'gpt2' and 'llama'",
    ),
    "no tokens": (key("tokenizer.ggml.tokens", None), FormatError, "the key tokenizer.ggml.tokens is missing"),
    "tokens are numbers": (
        key("tokenizer.ggml.tokens", array(5, np.zeros(VOCAB, "<i4"))),
        FormatError,
        "must be an array of strings",
    ),
    "tokens a string": (
        key("tokenizer.ggml.tokens", text("abc")),
        FormatError,
        "must be an array of strings, not 'abc'",
    ),
    "one token less": (
        key("tokenizer.ggml.tokens", texts(["a"] * 49)),
        FormatError,
        "49 tokens do not fit an embedding of 50",
    ),
    "types are floats": (
        key("tokenizer.ggml.token_type", array(6, np.ones(VOCAB, "<f4"))),
        FormatError,
        "array of 50 whole numbers",
    ),
    "type 7": (
        key("tokenizer.ggml.token_type", array(5, np.full(VOCAB, 7, "<i4"))),
        FormatError,
        "values outside 0 to 6",
    ),
    "types too short": (
        key("tokenizer.ggml.token_type", array(5, np.ones(3, "<i4"))),
        FormatError,
        "an array of 50 whole",
    ),
    "eos 50": (
        key("tokenizer.ggml.eos_token_id", u32(50)),
        FormatError,
        "eos_token_id must be a whole number from 0 to 49, not 50",
    ),
    "add_bos a number": (
        key("tokenizer.ggml.add_bos_token", u32(1)),
        FormatError,
        "add_bos_token must be a truth value, not 1",
    ),
    "no merges": (key("tokenizer.ggml.merges", None), FormatError, "tokenizer.ggml.merges is missing"),
    "template a number": (key("tokenizer.chat_template", u32(1)), FormatError, "chat_template must be a string, not 1"),
}
