"""How many cores this process may use: its affinity, and the CPU quota of its control groups.

A container's quota is not in the machine's core count; threads beyond it are stopped by the kernel for the rest of each
period, and a barrier then waits for them. Covers cgroup v2 and v1 on Linux; elsewhere the machine's count.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

from openherd.errors import OptionError

MAX_THREADS = 1024


def compute_threads(asked: int | None = None) -> int:
    """Threads to compute with: what was asked, else OPENHERD_THREADS, else one for each usable core."""
    if asked is not None:
        return asked
    text = os.environ.get("OPENHERD_THREADS", "")
    if not text:
        return usable_cores()
    if not text.isascii() or not text.isdigit() or len(text) > 4 or not 1 <= int(text) <= MAX_THREADS:
        raise OptionError(f"OPENHERD_THREADS must be a whole number from 1 to {MAX_THREADS}, not {text!r}")
    return int(text)


def usable_cores(root: Path = Path("/")) -> int:
    """At least 1. `root` is where proc and sys are mounted."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup_quota(root)
    return max(1, min(cores, math.ceil(quota)) if quota is not None else cores)


def _cgroup_quota(root: Path) -> float | None:
    """Cores' worth of CPU time per period: the least along the process's control groups; None if unlimited."""
    quotas = []
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            quotas += [_v2_quota(folder) for folder in _upward(root / "sys/fs/cgroup", path)]
        elif "cpu" in controllers.split(","):
            quotas += [_v1_quota(folder) for folder in _upward(root / "sys/fs/cgroup" / controllers, path)]
            quotas += [_v1_quota(folder) for folder in _upward(root / "sys/fs/cgroup/cpu", path)]
    return min((quota for quota in quotas if quota is not None), default=None)


def _upward(mount: Path, path: str) -> list[Path]:
    """The group's folder and all above it. Inside a container the path may not exist under the mount; its root does."""
    parts = [part for part in path.split("/") if part and part != ".."]
    return [mount.joinpath(*parts[:n]) for n in range(len(parts), -1, -1)]


def _v2_quota(folder: Path) -> float | None:
    quota, _, period = _text(folder / "cpu.max").strip().partition(" ")
    return _ratio(quota, period)


def _v1_quota(folder: Path) -> float | None:
    return _ratio(_text(folder / "cpu.cfs_quota_us").strip(), _text(folder / "cpu.cfs_period_us").strip())


def _ratio(quota: str, period: str) -> float | None:
    """None for "max", -1 and files that are not there."""
    if quota.isdigit() and period.isdigit() and int(quota) > 0 and int(period) > 0:
        return int(quota) / int(period)
    return None


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
