"""T4: a signal in any phase of a run saves within a step and ends it with a status that says so."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from openherd.train.checkpoint import find, read_saved
from openherd.train.interrupts import Interrupted, Interrupts
from tests.train.loop.conftest import digests_of
from tests.train.loop.forks import Forks
from tests.train.loop.small_run import events

SAVED_AT = {"first": 1, "step": 6, "evaluation": 4}
EVALUATED_AT = {"first": 0, "step": 4, "evaluation": 0}  # one that was cut short does not count


@pytest.mark.parametrize(
    ("where", "number"),
    [("first", signal.SIGTERM), ("step", signal.SIGINT), ("evaluation", signal.SIGTERM), ("step", signal.SIGHUP)],
)
def test_t4_saved_within_a_step(
    where: str, number: int, forks: Forks, data: Path, uninterrupted: dict[str, str], tmp_path: Path
) -> None:
    assert forks.call("train_with_signal", out=tmp_path, data=data, where=where, number=number) == 128 + number
    state = read_saved(find(tmp_path)).state
    assert (state.step, state.evaluated) == (SAVED_AT[where], EVALUATED_AT[where])
    assert forks.call("train", out=tmp_path, data=data) == 0
    assert [event["step"] for event in events(tmp_path, "resume")] == [SAVED_AT[where]]
    assert digests_of(tmp_path) == uninterrupted


def test_t4_in_data_preparation_nothing_is_left_behind(forks: Forks, data: Path, tmp_path: Path) -> None:
    status = forks.call("train_with_signal", out=tmp_path, data=data, where="preparing", number=signal.SIGTERM)
    assert status == 128 + signal.SIGTERM
    assert [path.name for path in tmp_path.iterdir()] == ["d.jsonl"]


def test_t4_a_second_signal_ends_at_once(forks: Forks, data: Path, tmp_path: Path) -> None:
    pid = forks.start("train_with_signal", out=tmp_path, data=data, where="step", number=signal.SIGTERM, again=1.1)
    assert forks.wait(pid) == -signal.SIGTERM
    assert read_saved(find(tmp_path)).state.step == 4  # the last one it had


def test_ignored_signals_stay_ignored_and_handlers_come_back() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupts() as interrupts:
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            with interrupts, interrupts.deferred():  # as the loop does within the command
                signal.raise_signal(signal.SIGTERM)
            assert interrupts.received == signal.SIGTERM
            signal.raise_signal(signal.SIGINT)  # within a second: torchrun's copy of the same wish
        with pytest.raises(Interrupted, match="SIGTERM") as caught, Interrupts():
            signal.raise_signal(signal.SIGTERM)
        assert caught.value.exit_status == 143
    finally:
        signal.signal(signal.SIGHUP, before[signal.SIGHUP])
    assert {number: signal.getsignal(number) for number in before} == before
