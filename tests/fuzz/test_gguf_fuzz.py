"""GGUF files put together at random and mutated: refused in our words and within bounds, or read whole."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openherd.checkpoints import open_adapter, open_checkpoint
from openherd.checkpoints.describe import describe
from openherd.checkpoints.families.gguf_config import DECODER_KEYS
from openherd.checkpoints.required_tensors import required_tensors
from openherd.config import ModelConfig
from openherd.quant.types import BLOCK_TYPES_BY_ID
from tests.checkpoint_files import (
    DIM,
    Encoded,
    Entry,
    GGUFFile,
    array,
    entry,
    f32,
    text,
    texts,
    tiny_llama,
    truth,
    u32,
    u64,
)
from tests.fuzz.mutations import EDGES, mutated, only_herd_errors, seconds, seeds

KEYS = sorted(
    {f"llama.{name}" for name in DECODER_KEYS.read | DECODER_KEYS.harmless | DECODER_KEYS.neutral.keys()}
    | {f"tokenizer.ggml.{x}_token_id" for x in ("bos", "eos", "eot", "eom", "unknown", "padding")}
    | {f"tokenizer.ggml.{x}" for x in ("model", "pre", "tokens", "scores", "merges", "token_type", "add_bos_token")}
    | {"general.alignment", "general.architecture", "general.type", "general.license", "general.quantization_version"}
    | {"tokenizer.chat_template", "split.count", "llama.unknown", "adapter.type", "adapter.lora.alpha"}
)
NUMBERS = st.sampled_from(EDGES) | st.integers(0, 70)
TYPES = st.sampled_from([*BLOCK_TYPES_BY_ID, 4, 5, 9, 16, 40, 99, 2**32 - 1])
WORDS = st.sampled_from(["llama", "gpt2", "smollm", "none", "linear", "yarn", "lora", "adapter", "", "\x00", "ß☃"])

VALUES: st.SearchStrategy[Encoded] = st.one_of(
    NUMBERS.map(lambda n: u32(n & 0xFFFFFFFF)),
    NUMBERS.map(u64),
    st.floats(width=32).map(f32),
    st.integers(0, 3).map(truth),
    WORDS.map(text),
    st.lists(WORDS, max_size=4).map(texts),
    st.binary(max_size=60).map(text),
    st.builds(
        lambda kind, count, claimed: array(kind, np.zeros(count, "u1"), claimed),
        st.integers(0, 14),
        st.integers(0, 60),
        NUMBERS,
    ),
    st.tuples(st.integers(0, 20), st.binary(max_size=40)),
)
ENTRIES = st.builds(
    Entry,
    name=st.sampled_from(["token_embd.weight", "output.weight", "blk.0.attn_q.weight", "rope_freqs.weight", "x", ""]),
    dims=st.lists(NUMBERS, max_size=5),
    type_id=TYPES,
    data=st.binary(max_size=80),
    offset=st.none() | NUMBERS,
    num_dims=st.none() | st.integers(0, 6) | st.just(2**32 - 1),
)


def read_all(path: Path) -> None:
    """Everything that a reader hands over is really there."""
    checkpoint = open_checkpoint(path)
    for name in checkpoint.tensors:
        tensor = checkpoint.tensors[name]
        assert tensor.rows().shape == (tensor.n_rows, tensor.type.row_bytes(tensor.shape[-1]))
    for name, shape in required_tensors(checkpoint.config):
        assert checkpoint.tensors[name].shape == shape
    spec = checkpoint.tokenizer
    assert len(list(spec.tokens)) == len(spec.token_types) == checkpoint.config.vocab_size
    assert all(0 <= stop < checkpoint.config.vocab_size for stop in spec.stop_ids)
    list(spec.merges)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ModelConfig:
    path = tmp_path_factory.mktemp("sound") / "model.gguf"
    path.write_bytes(tiny_llama().build())
    return open_checkpoint(path).config


@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
@given(
    keys=st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=6),
    entries=st.lists(ENTRIES, max_size=3),
    claims=st.fixed_dictionaries(
        {}, optional={"num_tensors": NUMBERS, "num_keys": NUMBERS, "version": st.integers(0, 4)}
    ),
    sound=st.booleans(),
)
def test_structures(
    keys: dict[str, Encoded], entries: list[Entry], claims: dict[str, Any], sound: bool, tmp_path: Path
) -> None:
    """A sound model or an empty file, with keys and tensors of any kind added and counts that lie."""
    file = tiny_llama() if sound else GGUFFile()
    file.keys |= keys
    file.tensors += entries
    for name, value in claims.items():
        setattr(file, name, value)
    path = tmp_path / "model.gguf"
    path.write_bytes(file.build())
    size = path.stat().st_size
    only_herd_errors(lambda: read_all(path), size)
    only_herd_errors(lambda: describe(path), size)


def test_mutated_models(tmp_path: Path) -> None:
    sound = tiny_llama(linear_type="Q8_0", tied=False, biases=("attn_q", "attn_k", "attn_v"))
    sound.tensors.append(entry("rope_freqs.weight", np.ones(4, np.float32)))
    sound.keys["tokenizer.chat_template"] = text("{{ messages }}")
    header_length, whole = len(sound.head()), sound.build()
    path = tmp_path / "model.gguf"
    read = []
    for seed in seeds(seconds(3), at_least=300):
        random = Random(seed)
        # Most of the file is weights, where a change is not noticed: aim at the header.
        head = mutated(whole[:header_length], random)
        path.write_bytes(head + whole[header_length:])
        read.append(only_herd_errors(lambda: read_all(path), len(whole), seed))
        only_herd_errors(lambda: describe(path), len(whole), seed)
    assert any(read)  # a change of a token's text still reads: the sound parts were reached
    assert not all(read)


def test_mutated_adapters(tmp_path: Path, config: ModelConfig) -> None:
    file = GGUFFile(
        {
            "general.architecture": text("llama"),
            "general.type": text("adapter"),
            "adapter.type": text("lora"),
            "adapter.lora.alpha": f32(4),
        },
        [
            entry("blk.0.attn_q.weight.lora_a", np.ones((2, DIM), np.float32)),
            entry("blk.0.attn_q.weight.lora_b", np.ones((DIM, 2), np.float32)),
        ],
    )
    whole = file.build()
    path = tmp_path / "lora.gguf"

    def read_pairs() -> None:
        for pair in open_adapter(path, config).pairs.values():
            assert pair.a.rows().shape[0] == pair.b.shape[1]
            assert pair.b.rows().shape[0] == pair.b.shape[0]

    for seed in seeds(seconds(1), at_least=100):
        path.write_bytes(mutated(whole, Random(seed)))
        only_herd_errors(read_pairs, len(whole), seed)
