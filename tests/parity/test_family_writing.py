"""What is written of every family: keys that say all of its config, tensors as llama.cpp and transformers have them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from openherd.checkpoints.families import Layout, Present, by_name
from openherd.checkpoints.gguf_header import read_header
from openherd.checkpoints.json_keys import JsonKeys
from openherd.checkpoints.planned_tensors import planned_tensors
from openherd.checkpoints.written_config import gguf_keys, rope_tensors
from openherd.checkpoints.written_hf_config import hf_config
from openherd.config import ModelConfig
from openherd.quant.types import BLOCK_TYPES
from openherd.workshop.golden.rotation import rotation
from openherd.workshop.verify.facts import config_differences
from tests.parity.family_cases import families, family_weights
from tests.parity.family_gguf import write_family_gguf
from tests.parity.family_layouts import NOT_IN_GGUF, Model, from_gguf, from_hf

FAMILIES = families()


def written(model: Model, layout: Layout) -> dict[str, np.ndarray]:
    config, tensors = model
    plan = planned_tensors(tensors, config, by_name(config.family), layout, lambda _: BLOCK_TYPES["F32"])
    return {
        tensor.name: np.concatenate([rows.reshape(-1) for rows in tensor.chunks()])
        .view(np.float32)
        .reshape(tensor.shape)
        for tensor in plan
    }


def assert_same(was: ModelConfig, now: ModelConfig) -> None:
    assert config_differences(asdict(was), rotation(was), now) == []


def present(model: Model) -> Present:
    layer = (name.removeprefix("model.layers.0.") for name in model[1] if name.startswith("model.layers.0."))
    return Present(97, model[0].tied_embeddings, frozenset(layer))


@pytest.mark.parametrize("name", FAMILIES)
def test_hugging_faces_layout_comes_back(name: str, tmp_path: Path) -> None:
    model = from_hf(name, tmp_path)
    family = by_name(model[0].family)
    settings = hf_config(model[0], family, "float32")
    assert settings["model_type"] == FAMILIES[name]["config"]["model_type"]
    assert settings["architectures"] == FAMILIES[name]["config"]["architectures"]
    assert_same(model[0], family.hf_config(JsonKeys(tmp_path / "config.json", settings), present(model)))
    weights = family_weights(FAMILIES[name]["shapes"])
    got = written(model, "hf")
    assert got.keys() == weights.keys()
    for key, values in weights.items():
        np.testing.assert_allclose(got[key], values, rtol=0, atol=1e-6 if by_added(key, name) else 0, err_msg=key)


def by_added(key: str, name: str) -> bool:
    """Gemma's norms, to which reading adds 1 and writing takes it off: once rounded."""
    return name.startswith("gemma") and key.endswith("norm.weight")


@pytest.mark.parametrize("name", sorted(set(FAMILIES) - NOT_IN_GGUF))
def test_gguf_is_what_llama_cpps_converter_writes(name: str, tmp_path: Path) -> None:
    model = from_hf(name, tmp_path)
    family = by_name(model[0].family)
    path = tmp_path / "converter.gguf"
    write_family_gguf(path, FAMILIES[name]["config"], family_weights(FAMILIES[name]["shapes"]))
    header = read_header(path)
    got = written(model, "gguf") | rope_tensors(model[0])
    assert got.keys() == header.tensors.keys()
    for key, info in header.tensors.items():
        expected = info.rows(header.data).reshape(-1).view(np.float32).reshape(info.shape)
        np.testing.assert_allclose(got[key], expected, rtol=1e-6 if key.startswith("rope_") else 0, atol=0, err_msg=key)
    keys = {key: value for key, value in gguf_keys(model[0], family).items() if key in header.keys}
    for key, value in keys.items():
        assert value == (header.keys[key] if isinstance(value, str) else pytest.approx(header.keys[key], rel=1e-6)), key


@pytest.mark.parametrize("name", sorted(set(FAMILIES) - NOT_IN_GGUF))
def test_gguf_becomes_a_folder(name: str, tmp_path: Path) -> None:
    """A GGUF file's config as config.json means the same, and the folder's tensors are those it was made from."""
    model = from_gguf(name, tmp_path)
    family = by_name(model[0].family)
    settings = hf_config(model[0], family, "float32")
    assert_same(model[0], family.hf_config(JsonKeys(tmp_path / "config.json", settings), present(model)))
    assert written(model, "hf").keys() == FAMILIES[name]["shapes"].keys()
