"""Files of every family, mutated: refused in our words and within bounds, or read whole."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from random import Random

import pytest

from openherd.checkpoints.gguf_header import read_header
from openherd.checkpoints.hf_folder import read_hf_folder, read_model
from openherd.checkpoints.required_tensors import required_tensors
from openherd.checkpoints.source import Tensor
from openherd.config import ModelConfig
from tests.fuzz.mutations import mutated, only_herd_errors, seconds, seeds
from tests.fuzz.targets import spoilt_json
from tests.fuzz.test_gguf_fuzz import read_all
from tests.parity.family_cases import families
from tests.parity.family_layouts import NOT_IN_GGUF, from_gguf, from_hf

CASES = families()


def read_whole(model: tuple[ModelConfig, dict[str, Tensor]]) -> None:
    config, tensors = model
    for name, shape in required_tensors(config):
        assert tensors[name].shape == shape
        tensors[name].rows()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both layouts of each case."""
    made = {}
    for name in CASES:
        made[name] = tmp_path_factory.mktemp(name)
        from_hf(name, made[name])
        if name not in NOT_IN_GGUF:
            from_gguf(name, made[name])
    return made


def test_mutated_config_json(folders: dict[str, Path], tmp_path: Path) -> None:
    read = []
    for seed in seeds(seconds(2), at_least=150):
        random = Random(seed)
        name = random.choice(sorted(CASES))
        shutil.copy(folders[name] / "model.safetensors", tmp_path)
        sound = json.dumps(CASES[name]["config"]).encode()
        (tmp_path / "config.json").write_bytes(spoilt_json(sound, random))
        size = (tmp_path / "model.safetensors").stat().st_size
        read.append(only_herd_errors(lambda: read_whole(read_model(read_hf_folder(tmp_path))), size, (name, seed)))
    assert any(read)
    assert not all(read)


def test_mutated_gguf(folders: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    read = []
    for seed in seeds(seconds(2), at_least=150):
        random = Random(seed)
        name = random.choice(sorted(set(CASES) - NOT_IN_GGUF))
        sound = folders[name] / f"{name}.gguf"
        whole = sound.read_bytes()
        keys_end = max(end for _, end in read_header(sound).key_places.values())
        path.write_bytes(mutated(whole[:keys_end], random) + whole[keys_end:])
        read.append(only_herd_errors(lambda: read_all(path), len(whole), (name, seed)))
    assert any(read)
    assert not all(read)
