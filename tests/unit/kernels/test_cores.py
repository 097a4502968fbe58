"""Counting the cores that may be used, from files like those of Linux."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from openherd.errors import OptionError
from openherd.kernels.cores import compute_threads, usable_cores


@pytest.fixture(autouse=True)
def _eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)


def _write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, 8),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "150000 100000\n"}, 2),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/cpu.max": "500000 100000",
                "sys/fs/cgroup/a/b/cpu.max": "300000 100000",
            },
            3,
        ),
        ({"proc/self/cgroup": "0::/../x\n", "sys/fs/cgroup/cpu.max": "50000 100000"}, 1),
        (
            {
                "proc/self/cgroup": "4:cpu,cpuacct:/d\n",
                "sys/fs/cgroup/cpu,cpuacct/d/cpu.cfs_quota_us": "400000",
                "sys/fs/cgroup/cpu,cpuacct/d/cpu.cfs_period_us": "100000",
            },
            4,
        ),
        (
            {
                "proc/self/cgroup": "4:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            8,
        ),
        ({"proc/self/cgroup": "nonsense\n", "sys/fs/cgroup/cpu.max": "what is this"}, 8),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "9000000 100000"}, 8),
    ],
)
def test_the_least_limit_counts(tmp_path: Path, files: dict[str, str], expected: int) -> None:
    assert usable_cores(_write(tmp_path, files)) == expected


def test_the_environment_chooses_where_nothing_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENHERD_THREADS", "5")
    assert compute_threads() == 5
    assert compute_threads(3) == 3
    monkeypatch.delenv("OPENHERD_THREADS")
    assert compute_threads() == usable_cores()


@pytest.mark.parametrize("text", ["0", "-1", "2.5", "many", "1025", "²", "9" * 5000])
def test_a_bad_number_of_threads_in_the_environment_is_named(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("OPENHERD_THREADS", text)
    with pytest.raises(OptionError, match="OPENHERD_THREADS"):
        compute_threads()
