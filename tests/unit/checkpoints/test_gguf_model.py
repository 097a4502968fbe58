"""From a GGUF file to a Checkpoint: config, names, row order, tokenizer facts, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from openherd.checkpoints import open_checkpoint
from openherd.checkpoints.source import Checkpoint
from openherd.config import RopeScaling
from openherd.errors import FormatError
from openherd.quant.dequantize import dequantize
from openherd.quant.quantize import quantize
from openherd.quant.types import BLOCK_TYPES
from tests.checkpoint_files import (
    FFN,
    HEAD_DIM,
    HEADS,
    KV_HEADS,
    VOCAB,
    Encoded,
    GGUFFile,
    array,
    entry,
    f32,
    text,
    texts,
    tiny_llama,
    truth,
    u32,
)
from tests.unit.checkpoints.refused_models import REFUSED


@pytest.fixture
def opened(tmp_path: Path) -> Callable[[GGUFFile], Checkpoint]:
    def write_and_open(file: GGUFFile) -> Checkpoint:
        path = tmp_path / "model.gguf"
        path.write_bytes(file.build())
        return open_checkpoint(path)

    return write_and_open


Opened = Callable[[GGUFFile], Checkpoint]


def with_keys(**keys: Encoded) -> GGUFFile:
    """The tiny model with these keys (`__` for a dot, under `llama.`) set."""
    file = tiny_llama()
    file.keys |= {f"llama.{name.replace('__', '.')}": value for name, value in keys.items()}
    return file


# Config


def test_config_of_a_plain_model(opened: Opened) -> None:
    checkpoint = opened(tiny_llama())
    config = checkpoint.config
    assert checkpoint.format == "GGUF v3"
    assert checkpoint.license == "apache-2.0"
    assert (config.family, config.dim, config.n_layers, config.ffn_dim) == ("llama", 32, 2, FFN)
    assert (config.n_heads, config.n_kv_heads, config.head_dim) == (HEADS, KV_HEADS, HEAD_DIM)
    assert (config.vocab_size, config.max_seq_len) == (VOCAB, 128)
    assert config.norm_eps == pytest.approx(1e-5, rel=1e-6)
    assert config.rope_theta == 10000.0
    assert config.rope_scaling == RopeScaling()
    assert config.rope_factors == ()
    assert config.tied_embeddings
    assert (config.qkv_bias, config.o_bias, config.mlp_bias) == (False, False, False)
    assert "lm_head.weight" not in checkpoint.tensors


def test_a_separate_head_and_every_bias(opened: Opened) -> None:
    stems = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    checkpoint = opened(tiny_llama(tied=False, biases=stems))
    assert not checkpoint.config.tied_embeddings
    assert checkpoint.config.qkv_bias
    assert checkpoint.config.o_bias
    assert checkpoint.config.mlp_bias
    assert checkpoint.tensors["lm_head.weight"].shape == (VOCAB, 32)
    assert checkpoint.tensors["model.layers.1.mlp.up_proj.bias"].shape == (FFN,)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, RopeScaling()),
        ({"rope__scaling__type": text("none"), "rope__scaling__factor": f32(4)}, RopeScaling()),
        ({"rope__scaling__type": text("linear"), "rope__scaling__factor": f32(4)}, RopeScaling("linear", 4.0)),
        ({"rope__scaling__factor": f32(4)}, RopeScaling("linear", 4.0)),
        ({"rope__scale_linear": f32(2)}, RopeScaling("linear", 2.0)),
        ({"rope__scale_linear": f32(2), "rope__scaling__factor": f32(8)}, RopeScaling("linear", 8.0)),
        ({"rope__scaling__factor": f32(0)}, RopeScaling()),
        (
            {"rope__scaling__type": text("yarn"), "rope__scaling__factor": f32(4)},
            RopeScaling("yarn", 4.0, original_max_seq_len=128),
        ),
        (
            {
                "rope__scaling__type": text("yarn"),
                "rope__scaling__factor": f32(4),
                "rope__scaling__original_context_length": u32(64),
                "rope__scaling__yarn_beta_fast": f32(16),
                "rope__scaling__yarn_beta_slow": f32(2),
                "rope__scaling__attn_factor": f32(0.5),
                "rope__scaling__yarn_attn_factor": f32(0.1 * np.log(4.0) + 1.0),
                "rope__scaling__yarn_ext_factor": f32(1),
            },
            RopeScaling(
                "yarn", 4.0, 64, beta_fast=16.0, beta_slow=2.0, attention_factor=0.5 * (0.1 * np.log(4.0) + 1.0)
            ),
        ),
    ],
)
def test_rope_scaling(keys: dict[str, Encoded], expected: RopeScaling, opened: Opened) -> None:
    assert opened(with_keys(**keys)).config.rope_scaling == expected


def test_rope_factors_are_read(opened: Opened) -> None:
    file = tiny_llama()
    file.tensors.append(entry("rope_freqs.weight", np.array([1, 1, 2, 8], np.float32)))
    checkpoint = opened(file)
    assert checkpoint.config.rope_factors == (1.0, 1.0, 2.0, 8.0)
    assert "rope_freqs.weight" not in checkpoint.tensors


def test_a_size_given_for_each_layer_must_be_one(opened: Opened) -> None:
    heads = array(5, np.array([HEADS, HEADS], "<i4"))
    assert opened(with_keys(attention__head_count=heads)).config.n_heads == HEADS
    with pytest.raises(FormatError, match="feed_forward_length must be one whole number, the same for every layer"):
        opened(with_keys(feed_forward_length=array(5, np.array([96, 64], "<i4"))))


@pytest.mark.parametrize(
    "keys",
    [
        {"expert_count": u32(0)},
        {"attention__causal": truth(1)},
        {"logit_scale": f32(1)},
        {"attention__sliding_window": u32(0)},
        {"rope__dimension_count": u32(HEAD_DIM), "attention__key_length": u32(HEAD_DIM)},
        {"rope__scaling__finetuned": truth(1)},
        {"vocab_size": u32(VOCAB)},
    ],
)
def test_neutral_values_change_nothing(keys: dict[str, Encoded], opened: Opened) -> None:
    assert opened(with_keys(**keys)).config == opened(tiny_llama()).config


# Tensors


def converted(weight: np.ndarray, n_heads: int) -> np.ndarray:
    """What the converters of GGUF files do to query and key weights, from Hugging Face's row order to GGUF's."""
    shape = (n_heads, 2, weight.shape[0] // n_heads // 2, *weight.shape[1:])
    return weight.reshape(shape).swapaxes(1, 2).reshape(weight.shape)


@pytest.mark.parametrize("linear_type", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1"])
def test_query_and_key_rows_come_in_halves(linear_type: str, opened: Opened) -> None:
    file = tiny_llama(linear_type=linear_type)
    rng = np.random.default_rng(9)
    weights = {
        "q": rng.standard_normal((HEADS * HEAD_DIM, 32), np.float32),
        "k": rng.standard_normal((KV_HEADS * HEAD_DIM, 32), np.float32),
        "v": rng.standard_normal((KV_HEADS * HEAD_DIM, 32), np.float32),
    }
    file.without(*(f"blk.1.attn_{x}.weight" for x in weights))
    file.tensors += [
        entry("blk.1.attn_q.weight", converted(weights["q"], HEADS), linear_type),
        entry("blk.1.attn_k.weight", converted(weights["k"], KV_HEADS), linear_type),
        entry("blk.1.attn_v.weight", weights["v"], linear_type),
    ]
    tensors = opened(file).tensors
    for x, weight in weights.items():
        tensor = tensors[f"model.layers.1.self_attn.{x}_proj.weight"]
        assert tensor.shape == weight.shape
        assert tensor.rows().shape == (tensor.n_rows, tensor.type.row_bytes(32))
        np.testing.assert_array_equal(tensor.rows(), quantize(weight, BLOCK_TYPES[linear_type]))


@pytest.mark.parametrize("stored", ["F32", "F16"])
def test_query_and_key_biases_follow_their_rows(stored: str, opened: Opened) -> None:
    file = tiny_llama(biases=("attn_q", "attn_k", "attn_v"))
    bias = np.arange(KV_HEADS * HEAD_DIM, dtype=np.float32)
    file.without("blk.0.attn_k.bias", "blk.0.attn_v.bias")
    file.tensors += [
        entry("blk.0.attn_k.bias", converted(bias, KV_HEADS), stored),
        entry("blk.0.attn_v.bias", bias, stored),
    ]
    tensors = opened(file).tensors
    for x in "kv":
        tensor = tensors[f"model.layers.0.self_attn.{x}_proj.bias"]
        assert tensor.rows().shape == (1, tensor.nbytes)
        np.testing.assert_array_equal(dequantize(tensor.rows(), tensor.type)[0], bias)


def test_tensors_in_canonical_order_are_views(opened: Opened) -> None:
    tensors = opened(tiny_llama()).tensors
    assert np.shares_memory(tensors["model.norm.weight"].rows(), tensors["model.norm.weight"].rows())
    assert not tensors["model.norm.weight"].rows().flags.writeable


# Tokenizer


def test_tokenizer_facts(opened: Opened) -> None:
    checkpoint = opened(tiny_llama())
    spec = checkpoint.tokenizer
    assert (spec.kind, spec.pre, len(spec.tokens), list(spec.merges)) == ("bpe", "smollm", VOCAB, ["t 1", "t 2"])
    assert (spec.bos_id, spec.eos_id, spec.eot_id, spec.eom_id, spec.unk_id, spec.pad_id) == (1, 2, 3, None, None, None)
    assert spec.stop_ids == {0, 2, 3}
    assert (spec.add_bos, spec.add_eos, spec.add_space_prefix) == (False, False, False)
    assert checkpoint.chat_template is None


@pytest.mark.parametrize(
    ("keys", "add_bos"),
    [({}, False), ({"pre": text("llama-bpe")}, True), ({"pre": text("llama-bpe"), "add_bos_token": truth(0)}, False),
     ({"add_bos_token": truth(1)}, True)],
)  # fmt: skip
def test_beginning_of_text_as_llama_cpp_adds_it(keys: dict[str, Encoded], add_bos: bool, opened: Opened) -> None:
    file = tiny_llama()
    file.keys |= {f"tokenizer.ggml.{key}": value for key, value in keys.items()}
    assert opened(file).tokenizer.add_bos is add_bos


def test_sentencepiece_defaults(opened: Opened) -> None:
    file = tiny_llama()
    file.keys = {k: v for k, v in file.keys.items() if not k.startswith("tokenizer.")} | {
        "tokenizer.ggml.model": text("llama"),
        "tokenizer.ggml.tokens": texts(["<unk>", "<s>", "</s>", *(f"t{i}" for i in range(VOCAB - 3))]),
        "tokenizer.ggml.scores": array(6, -np.arange(VOCAB, dtype="<f4")),
        "tokenizer.chat_template": text("{{ messages }}"),
    }
    checkpoint = opened(file)
    spec = checkpoint.tokenizer
    assert (spec.kind, spec.pre, spec.scores[3], spec.token_types[0]) == ("spm", "", -3.0, 1)
    assert (spec.bos_id, spec.eos_id, spec.unk_id) == (1, 2, 0)
    assert (spec.add_bos, spec.add_eos, spec.add_space_prefix) == (True, False, True)
    assert spec.stop_ids == {2}
    assert checkpoint.chat_template == "{{ messages }}"


def test_special_names_of_normal_tokens_do_not_stop(opened: Opened) -> None:
    file = tiny_llama()
    file.keys["tokenizer.ggml.token_type"] = array(5, np.array([3, 3, 3] + [1] * (VOCAB - 3), "<i4"))
    assert opened(file).tokenizer.stop_ids == {0, 2}


def test_metadata_leaves_long_arrays_out(opened: Opened) -> None:
    metadata = opened(tiny_llama()).metadata
    assert metadata["llama.block_count"] == 2
    assert metadata["tokenizer.ggml.merges"] == ["t 1", "t 2"]


# Refusals


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str, opened: Opened) -> None:
    change, kind, message = REFUSED[case]
    file = tiny_llama(linear_type="Q8_0")
    change(file)
    with pytest.raises(kind, match=message) as caught:
        opened(file)
    assert "model.gguf" in str(caught.value)
