"""Readers of torch files, JSON settings and tokenizers on spoilt files: refused in our words and bounds, or read whole.

A case that breaks the rule is kept under build/fuzz; put it into tests/fuzz/corpus/TARGET once the reader is mended.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from tests.fuzz.mutations import only_herd_errors, seconds, seeds
from tests.fuzz.targets import CORPUS, TARGETS, Target

KEPT = Path(__file__).parents[2] / "build" / "fuzz"


def check(target: Target, name: str, case: bytes, folder: Path, seed: object) -> bool:
    """Whether the case is read. What escapes is kept."""
    path = folder / target.file
    path.write_bytes(case)
    size = sum(file.stat().st_size for file in folder.iterdir())
    try:
        return only_herd_errors(lambda: target.read(folder, path), size, seed)
    except BaseException:
        KEPT.mkdir(parents=True, exist_ok=True)
        (KEPT / f"{name}-{seed}").write_bytes(case)
        raise


@pytest.mark.parametrize("name", TARGETS)
def test_mutated(name: str, tmp_path: Path) -> None:
    target = TARGETS[name]
    target.lay_out(tmp_path)
    sound = target.sound()
    assert check(target, name, sound, tmp_path, "sound"), "the sound case is refused"
    read = [
        check(target, name, target.mutate(sound, Random(seed)), tmp_path, seed)
        for seed in seeds(seconds(0.3), at_least=40)
    ]
    assert not all(read)


@pytest.mark.parametrize("case", sorted(CORPUS.glob("*/*")), ids=lambda path: f"{path.parent.name}-{path.name}")
def test_corpus(case: Path, tmp_path: Path) -> None:
    target = TARGETS[case.parent.name]
    target.lay_out(tmp_path)
    check(target, case.parent.name, case.read_bytes(), tmp_path, case.name)
