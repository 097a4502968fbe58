"""LoRA adapters of PEFT and GGUF form: what they become, and what is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from openherd.checkpoints import open_adapter, open_checkpoint
from openherd.checkpoints.source import Adapter, Tensor
from openherd.config import ModelConfig
from openherd.errors import ModelNotFoundError
from openherd.quant.dequantize import dequantize
from tests.checkpoint_files import (
    DIM,
    FFN,
    HEAD_DIM,
    HEADS,
    KV_HEADS,
    GGUFFile,
    entry,
    f32,
    safetensors_of,
    text,
    tiny_llama,
)
from tests.unit.checkpoints.refused_adapters import GGUF_REFUSED, PEFT_REFUSED, RANK, TENSORS_REFUSED

ALPHA = 6.0
SHAPES = {
    "self_attn.q_proj": (HEADS * HEAD_DIM, DIM),
    "self_attn.k_proj": (KV_HEADS * HEAD_DIM, DIM),
    "mlp.down_proj": (DIM, FFN),
}
GGUF_STEMS = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "mlp.down_proj": "ffn_down"}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ModelConfig:
    path = tmp_path_factory.mktemp("model") / "model.gguf"
    path.write_bytes(tiny_llama().build())
    return open_checkpoint(path).config


def random_pairs() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """A [r, K] and B [N, r] of layer 1, in Hugging Face's row order."""
    rng = np.random.default_rng(4)
    return {
        linear: (rng.standard_normal((RANK, k), np.float32), rng.standard_normal((n, RANK), np.float32))
        for linear, (n, k) in SHAPES.items()
    }


def write_peft(
    folder: Path, settings: Mapping[str, Any] | bytes | None = None, tensors: Mapping[str, np.ndarray] | None = None
) -> Path:
    """A folder as PEFT saves it; `settings` are added to the config, or are the config's bytes."""
    if tensors is None:
        tensors = {}
        for linear, (a, b) in random_pairs().items():
            prefix = f"base_model.model.model.layers.1.{linear}.lora"
            tensors |= {f"{prefix}_A.weight": a, f"{prefix}_B.weight": b}
    if not isinstance(settings, bytes):
        plain = {
            "peft_type": "LORA",
            "r": RANK,
            "lora_alpha": ALPHA,
            "bias": "none",
            "rank_pattern": {},
            "use_dora": False,
        }
        settings = json.dumps(plain | dict(settings or {})).encode()
    (folder / "adapter_config.json").write_bytes(settings)
    (folder / "adapter_model.safetensors").write_bytes(safetensors_of(tensors))
    return folder


def converted(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows of B from Hugging Face's order to GGUF's, as the converters do to a weight's."""
    return rows.reshape(heads, 2, HEAD_DIM // 2, -1).swapaxes(1, 2).reshape(rows.shape)


def gguf_lora() -> GGUFFile:
    file = GGUFFile(
        {
            "general.architecture": text("llama"),
            "general.type": text("adapter"),
            "adapter.type": text("lora"),
            "adapter.lora.alpha": f32(ALPHA),
        }
    )
    heads = {"self_attn.q_proj": HEADS, "self_attn.k_proj": KV_HEADS}
    for linear, (a, b) in random_pairs().items():
        stem = f"blk.1.{GGUF_STEMS[linear]}.weight.lora"
        file.tensors.append(entry(f"{stem}_a", a, "F16"))
        file.tensors.append(entry(f"{stem}_b", converted(b, heads[linear]) if linear in heads else b))
    return file


def values(tensor: Tensor) -> np.ndarray:
    return dequantize(tensor.rows(), tensor.type)


# Sound adapters


def assert_pairs(adapter: Adapter, a_tolerance: float) -> None:
    expected = random_pairs()
    assert adapter.rank == RANK
    assert adapter.pairs.keys() == {f"model.layers.1.{linear}.weight" for linear in expected}
    for linear, (a, b) in expected.items():
        pair = adapter.pairs[f"model.layers.1.{linear}.weight"]
        assert (pair.a.shape, pair.b.shape) == (a.shape, b.shape)
        np.testing.assert_allclose(values(pair.a), a, rtol=a_tolerance)
        np.testing.assert_array_equal(values(pair.b), b)


def test_peft_folder(tmp_path: Path, config: ModelConfig) -> None:
    adapter = open_adapter(write_peft(tmp_path), config)
    assert_pairs(adapter, a_tolerance=0)
    assert adapter.scale == ALPHA / RANK


def test_rank_stabilised_scale(tmp_path: Path, config: ModelConfig) -> None:
    adapter = open_adapter(write_peft(tmp_path, {"use_rslora": True}), config)
    assert adapter.scale == pytest.approx(ALPHA / math.sqrt(RANK))


def test_gguf_file(tmp_path: Path, config: ModelConfig) -> None:
    path = tmp_path / "lora.gguf"
    path.write_bytes(gguf_lora().build())
    adapter = open_adapter(path, config)
    assert_pairs(adapter, a_tolerance=2.0**-11)  # A is stored as F16
    assert adapter.scale == ALPHA / RANK


def test_gguf_alpha_0_is_scale_1(tmp_path: Path, config: ModelConfig) -> None:
    file = gguf_lora()
    file.keys["adapter.lora.alpha"] = f32(0)
    path = tmp_path / "lora.gguf"
    path.write_bytes(file.build())
    assert open_adapter(path, config).scale == 1.0


def test_what_the_real_peft_saved_opens() -> None:
    """The committed folder that peft itself wrote: every key of its config is known."""
    from tests.parity.llama_cases import CASES

    folder = Path(__file__).parents[2] / "parity" / "lora_peft"
    adapter = open_adapter(folder, CASES["biases"])
    assert adapter.scale == 4.0
    assert len(adapter.pairs) == 7 * CASES["biases"].n_layers


# PEFT refusals


@pytest.mark.parametrize("case", PEFT_REFUSED)
def test_peft_refused(case: str, tmp_path: Path, config: ModelConfig) -> None:
    settings, kind, message = PEFT_REFUSED[case]
    with pytest.raises(kind, match=message):
        open_adapter(write_peft(tmp_path, settings), config)


@pytest.mark.parametrize("case", TENSORS_REFUSED)
def test_peft_tensors_refused(case: str, tmp_path: Path, config: ModelConfig) -> None:
    tensors, kind, message = TENSORS_REFUSED[case]
    with pytest.raises(kind, match=message):
        open_adapter(write_peft(tmp_path, tensors=tensors), config)


@pytest.mark.parametrize("missing", ["adapter_config.json", "adapter_model.safetensors"])
def test_peft_file_missing(missing: str, tmp_path: Path, config: ModelConfig) -> None:
    (write_peft(tmp_path) / missing).unlink()
    with pytest.raises(ModelNotFoundError, match=f"{missing} does not exist"):
        open_adapter(tmp_path, config)


# GGUF refusals


@pytest.mark.parametrize("case", GGUF_REFUSED)
def test_gguf_refused(case: str, tmp_path: Path, config: ModelConfig) -> None:
    change, kind, message = GGUF_REFUSED[case]
    file = gguf_lora()
    change(file)
    path = tmp_path / "lora.gguf"
    path.write_bytes(file.build())
    with pytest.raises(kind, match=message):
        open_adapter(path, config)


def test_nothing_there(tmp_path: Path, config: ModelConfig) -> None:
    with pytest.raises(ModelNotFoundError, match="does not exist"):
        open_adapter(tmp_path / "none", config)
