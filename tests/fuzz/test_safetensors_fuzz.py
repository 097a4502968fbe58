"""safetensors files and PEFT folders put together at random and mutated: refused in our words, or read whole."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openherd.checkpoints import open_adapter, open_checkpoint
from openherd.checkpoints.peft_adapter import HARMLESS, NEUTRAL, READ
from openherd.checkpoints.safetensors import read_safetensors
from openherd.config import ModelConfig
from tests.checkpoint_files import DIM, safetensors_file, safetensors_of, tiny_llama
from tests.fuzz.mutations import EDGES, mutated, only_herd_errors, seconds, seeds

QUICK = settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
NUMBERS = st.sampled_from(EDGES) | st.integers(-2, 70)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F16", "BF16", "I8", "F64", ""]) | JSON,
        "shape": st.lists(NUMBERS, max_size=3) | JSON,
        "data_offsets": st.tuples(NUMBERS, NUMBERS) | JSON,
    }
)
HEADERS = st.dictionaries(
    st.sampled_from(["__metadata__", "a", "b", ""]) | st.text(max_size=5), ENTRIES | JSON, max_size=3
)
TENSORS = {
    "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": np.ones((2, DIM), np.float32),
    "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight": np.ones((DIM, 2), np.float32),
}
CONFIG = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"], "bias": "none"}


def read_all(path: Path) -> None:
    file = read_safetensors(path)
    total = 0
    for info in file.tensors.values():
        assert info.rows(file.data).size == info.nbytes
        total += info.nbytes
    assert total <= path.stat().st_size


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ModelConfig:
    path = tmp_path_factory.mktemp("sound") / "model.gguf"
    path.write_bytes(tiny_llama().build())
    return open_checkpoint(path).config


@QUICK
@given(header=HEADERS, data=st.binary(max_size=100), length=st.none() | st.sampled_from(EDGES))
def test_structures(header: dict[str, Any], data: bytes, length: int | None, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors_file(header, data, length))
    only_herd_errors(lambda: read_all(path), path.stat().st_size)


def test_mutated_files(tmp_path: Path) -> None:
    whole = safetensors_of(TENSORS)
    path = tmp_path / "x.safetensors"
    for seed in seeds(seconds(1), at_least=300):
        path.write_bytes(mutated(whole, Random(seed)))
        only_herd_errors(lambda: read_all(path), len(whole), seed)


@QUICK
@given(
    settings_=st.dictionaries(
        st.sampled_from(sorted(READ | HARMLESS | NEUTRAL.keys())) | st.text(max_size=8), JSON, max_size=4
    )
)
def test_adapter_settings(settings_: dict[str, Any], tmp_path: Path, config: ModelConfig) -> None:
    (tmp_path / "adapter_model.safetensors").write_bytes(safetensors_of(TENSORS))
    (tmp_path / "adapter_config.json").write_text(json.dumps(CONFIG | settings_))
    only_herd_errors(lambda: open_adapter(tmp_path, config), 2000)


def test_mutated_adapters(tmp_path: Path, config: ModelConfig) -> None:
    files = {"adapter_config.json": json.dumps(CONFIG).encode(), "adapter_model.safetensors": safetensors_of(TENSORS)}
    for seed in seeds(seconds(1), at_least=200):
        random = Random(seed)
        for name, whole in files.items():
            (tmp_path / name).write_bytes(mutated(whole, random) if random.random() < 0.6 else whole)
        only_herd_errors(lambda: open_adapter(tmp_path, config), 2000, seed)
