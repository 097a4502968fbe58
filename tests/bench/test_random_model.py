"""The random model of bench/: a file that opens, whose blocks are finite and whose text goes through its vocabulary."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.random_model import LLAMA_3_2_1B, tensor_types, write_model
from openherd import LLM, SamplingParams
from openherd.checkpoints import open_checkpoint
from openherd.kernels.rope import inverse_frequencies
from openherd.options import EngineOptions
from openherd.quant.dequantize import dequantize

SMALL = replace(LLAMA_3_2_1B, dim=256, n_layers=8, n_heads=4, n_kv_heads=2, ffn_dim=512, vocab_size=2048)


@pytest.mark.parametrize("type_name", ["Q4_0", "Q4_K"])
def test_the_file_opens_and_writes_text(tmp_path: Path, type_name: str) -> None:
    path = tmp_path / "random.gguf"
    write_model(path, type_name, config=SMALL)
    with LLM.load(path, options=EngineOptions(context=128)) as model:
        ids = model.tokenizer.encode("ab cab")
        assert model.tokenizer.decode(ids) == "ab cab"
        assert len(ids) < len("ab cab"), "the merges are used"
        completion = model.generate("ab cab", SamplingParams(max_tokens=8, ignore_eos=True, logprobs=0))[0]
    assert len(completion.token_ids) == 8
    assert all(np.isfinite(p.logprob) for p in completion.logprobs)


def test_values_have_mean_zero_and_the_size_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "random.gguf"
    write_model(path, "Q4_K", config=SMALL)
    for name, tensor in open_checkpoint(path).tensors.items():
        if len(tensor.shape) == 2:
            values = dequantize(tensor.rows(), tensor.type)
            wanted = 0.03 if "embed" in name else 1.5 / np.sqrt(tensor.shape[-1])
            assert abs(values.mean()) < 0.1 * wanted, name
            assert values.std() == pytest.approx(wanted, rel=0.1), name


def test_rope_factors_are_llama_3s(tmp_path: Path) -> None:
    path = tmp_path / "random.gguf"
    write_model(path, "Q4_0", config=SMALL)
    read, scale = inverse_frequencies(open_checkpoint(path).config)
    np.testing.assert_allclose(read, inverse_frequencies(SMALL)[0], rtol=1e-6)
    assert scale == 1.0


def test_the_same_arguments_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_model(tmp_path / name, "Q4_0", config=SMALL)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_mixture_is_llama_cpps() -> None:
    types = {name: block_type.name for name, _, block_type in tensor_types(LLAMA_3_2_1B, "Q4_K")}
    finer = [layer for layer in range(16) if types[f"blk.{layer}.ffn_down.weight"] == "Q6_K"]
    assert finer == [0, 1, 4, 7, 10, 13, 14, 15]  # use_more_bits of llama.cpp, for 16 layers
    assert types["token_embd.weight"] == "Q6_K"
    assert types["blk.2.attn_q.weight"] == "Q4_K"
