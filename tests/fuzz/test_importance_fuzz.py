"""Importance matrices, mutated: refused in our words, or finite weights for every column."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np

from openherd.workshop.importance import read_importance
from tests.fuzz.mutations import mutated, only_herd_errors, seconds, seeds
from tests.unit.workshop.importance_file import importance_file


def test_mutated_importance(tmp_path: Path) -> None:
    sound, path = importance_file().build(), tmp_path / "importance.gguf"

    def read() -> None:
        importance = read_importance(path)
        for name, sums in importance.sums.items():
            assert np.isfinite(importance.of(name, (len(sums), 1, sums.shape[1]))).all()

    accepted = 0
    for seed in seeds(seconds(0.5), at_least=200):
        data = mutated(sound, Random(seed))
        path.write_bytes(data)
        accepted += only_herd_errors(read, len(data), seed)
    assert accepted
