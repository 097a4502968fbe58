"""T3: a disk that fills while a checkpoint is written leaves the last one intact and says so."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from openherd.checkpoints import new_file
from openherd.errors import OutputError
from openherd.train.checkpoint import find, read_saved, steps_of
from tests.small_disk import small_disk
from tests.train.loop.forks import Forks
from tests.train.loop.small_run import CONFIG, events, recipe_of, trainer

WIDE = replace(CONFIG, ffn_dim=20_000)  # 3.8 million weights: 46 MB a checkpoint


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path, "64m") as folder:
        yield folder


@pytest.mark.parametrize("foreseen", [True, False])
def test_t3_full_disk(foreseen: bool, disk: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second checkpoint does not fit beside the first. It is found before writing, or by the system's ENOSPC."""
    if not foreseen:
        monkeypatch.setattr(new_file, "_require_space", lambda path, nbytes: None)
    run = recipe_of(disk / "run", data, steps=2, checkpoint_every=1, eval_every=9, sample_every=9, keep=1)
    with pytest.raises(OutputError) as full:
        trainer(run, config=WIDE).run()
    message = "needs" if foreseen else "takes"  # the latter is said of an ENOSPC alone
    assert f"the disk is full: {disk}/run/checkpoints/.step-00000001.partial" in str(full.value)
    assert f" {message} " in str(full.value)
    assert f"the run goes on from {disk}/run/checkpoints/step-00000000" in str(full.value)
    assert steps_of(disk / "run") == [0]
    assert read_saved(find(disk / "run")).state.step == 0
    assert not list((disk / "run" / "checkpoints").glob(".step-*"))  # what it had written makes room again
    subprocess.run(["mount", "-o", "remount,size=256m", disk], check=True)
    assert trainer(run, config=WIDE).run().state.step == 2
    assert events(disk / "run", "resume")[-1]["step"] == 0


def test_t3_a_file_larger_than_allowed(data: Path, forks: Forks, tmp_path: Path) -> None:
    """Without a mount: the kernel refuses the first checkpoint's moments, which are the larger file."""
    assert forks.call("train", out=tmp_path, data=data, steps=1, checkpoint_every=1) == 0
    (weights,), (moments,) = (list(find(tmp_path).glob(f"{part}/*")) for part in ("model", "optimizer"))
    limit = (weights.stat().st_size + moments.stat().st_size) // 2
    assert forks.call("train_with_little_room", out=tmp_path / "run", data=data, limit=limit) == OutputError.exit_status
    assert steps_of(tmp_path / "run") == []
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == [".lock"]
    assert os.path.getsize(tmp_path / "run" / "log.jsonl") > 0  # it was the save that failed, not the start
