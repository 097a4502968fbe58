"""Runs that are killed, in a step or while they save, and that reach the very bits they would have reached.

`make test` takes a few places, `make test-train` as many as the bars ask for.
"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from random import Random

import pytest

from openherd.train.checkpoint import require_sound, steps_of
from tests.train.loop.conftest import digests_of
from tests.train.loop.forks import Forks
from tests.train.loop.small_run import EVERY, STEPS, events, log_of

FULL = bool(os.environ.get("OPENHERD_FULL_TESTS"))
KILLS, SAVE_KILLS = (20, 50) if FULL else (3, 5)


@pytest.mark.parametrize("case", range(KILLS))
def test_t1_killed_at_a_random_step(
    case: int, forks: Forks, data: Path, uninterrupted: dict[str, str], tmp_path: Path
) -> None:
    """SIGKILL from outside once a random step is logged and a random part of the next has passed."""
    random = Random(case)
    after, pause = random.randrange(STEPS), random.uniform(0, 0.05)
    pid = forks.start("train", out=tmp_path, data=data, slowly=0.03)
    while not (tmp_path / "log.jsonl").exists() or _last_step(tmp_path) < after:
        time.sleep(0.002)
    time.sleep(pause)
    os.kill(pid, signal.SIGKILL)
    assert forks.wait(pid) == -signal.SIGKILL
    assert not (tmp_path / "digests.json").exists()
    assert forks.call("train", out=tmp_path, data=data) == 0
    assert digests_of(tmp_path) == uninterrupted


def _last_step(out: Path) -> int:
    """0 once the first checkpoint is there, -1 before."""
    steps = [line["step"] for line in log_of(out) if "event" not in line]
    return max(steps, default=0 if events(out, "checkpoint") else -1)


@pytest.fixture(scope="module")
def calls(forks: Forks, data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What one save calls, in order."""
    out = tmp_path_factory.mktemp("calls")
    assert forks.call("count_calls_of_save", out=out, data=data, step=EVERY) == 0
    return list(json.loads((out / "calls.json").read_text()))


@pytest.mark.parametrize("case", range(SAVE_KILLS))
def test_t2_killed_while_saving(
    case: int, calls: list[str], forks: Forks, data: Path, uninterrupted: dict[str, str], tmp_path: Path
) -> None:
    """SIGKILL at a call inside the save of a step: the run resumes by itself, one interval back at most."""
    at = len(calls) * case // SAVE_KILLS + Random(case).randrange(len(calls) // SAVE_KILLS)
    assert forks.call("train_until_save_dies", out=tmp_path, data=data, at=at, step=EVERY) == -signal.SIGKILL
    renamed = calls[:at].count("rename") > 0
    assert steps_of(tmp_path) == ([0, EVERY] if renamed else [0])
    require_sound(tmp_path / "checkpoints" / f"step-{steps_of(tmp_path)[-1]:08d}")
    assert forks.call("train", out=tmp_path, data=data) == 0
    assert [event["step"] for event in events(tmp_path, "resume")] == [EVERY if renamed else 0]
    assert digests_of(tmp_path) == uninterrupted
    assert not [path for path in (tmp_path / "checkpoints").iterdir() if path.name.endswith((".partial", ".old"))]


def test_t2_the_calls_of_a_save_are_those_that_matter(calls: list[str]) -> None:
    """So kills spread over them fall between writing, syncing and naming; files are synced before the name."""
    named = calls.index("rename")
    assert calls[:named].count("fsync") >= 4 + 3  # four files, three folders
    assert "fsync" in calls[named:]
