"""state.json and manifest.json of checkpoints, mutated: refused in our words, or read whole."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest

from openherd.train.checkpoint import MANIFEST, STATE, read_saved, require_sound
from openherd.train.guard import Guard
from openherd.train.run_state import RunState, SavedState, written
from tests.fuzz.mutations import only_herd_errors, seconds, seeds
from tests.fuzz.targets import spoilt_json

SAVED = SavedState(
    RunState(step=9, updates=8, evaluated=8, sampled=8, best_step=4, best_loss=1.5, guard=Guard((2.5, 2.25))),
    {"run.seed": "3", "data and objective": "likelihood:ab"},
)


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "tensors.safetensors").write_bytes(b"x" * 100)
    (tmp_path / STATE).write_bytes(written(SAVED))
    files = {
        "model/tensors.safetensors": {"bytes": 100, "sha256": "0" * 64},
        STATE: {"bytes": len(written(SAVED)), "sha256": "0" * 64},
    }
    (tmp_path / MANIFEST).write_text(json.dumps({"version": 1, "files": files}))
    return tmp_path


def test_mutated_states(sound: Path) -> None:
    assert read_saved(sound) == SAVED
    read = 0
    for seed in seeds(seconds(0.5), at_least=100):
        case = spoilt_json(written(SAVED), Random(seed))
        (sound / STATE).write_bytes(case)
        read += only_herd_errors(lambda: read_saved(sound).state.guard.fault(1.0, 1.0, 2.0), len(case), seed)
    assert read < seed + 1


def test_mutated_manifests(sound: Path) -> None:
    """Those that are read are of other files: nothing here has the hash that they say."""
    case = (sound / MANIFEST).read_bytes()
    for seed in seeds(seconds(0.5), at_least=100):
        (sound / MANIFEST).write_bytes(spoilt_json(case, Random(seed)))
        assert not only_herd_errors(lambda: require_sound(sound), len(case), seed)
