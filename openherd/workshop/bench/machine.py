"""What machine this is, and what else ran on it meanwhile."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from openherd import __version__
from openherd.kernels.cores import usable_cores
from openherd.kernels.cpu_name import cpu_name
from openherd.kernels.native import default_isa

_STAT = Path("/proc/stat")
# The line of all processors in /proc/stat (proc(5)): user nice system idle iowait irq softirq steal ...
_IDLE_FIELDS = (3, 4)
_FIELDS = 8  # guest times that follow are counted in user and nice already


def machine_facts(threads: int) -> dict[str, Any]:
    """What a reader needs to judge the figures. Keys are stable; None where the system does not say."""
    return {
        "cpu": cpu_name(),
        "cores": usable_cores(),
        "threads": threads,
        "isa": default_isa(),
        "memory_bytes": _memory_bytes(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "openherd": __version__,
    }


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


@dataclass(frozen=True, slots=True)
class _Clock:
    """CPU seconds up to a moment."""

    wall: float
    own: float  # of this process and the children it has waited for
    all: float | None  # of every process on the machine, and what its host took away; None where not told

    @classmethod
    def now(cls) -> _Clock:
        times = os.times()
        return cls(perf_counter(), times.user + times.system + times.children_user + times.children_system, _all_busy())


def _all_busy() -> float | None:
    try:
        fields = [int(field) for field in _STAT.read_text().split("\n", 1)[0].split()[1 : 1 + _FIELDS]]
        return (sum(fields) - sum(fields[i] for i in _IDLE_FIELDS)) / os.sysconf("SC_CLK_TCK")
    except (AttributeError, OSError, ValueError, IndexError):
        return None


class OtherWork:
    """How many cores others kept busy since this was made: other processes here, and the host of a virtual machine."""

    def __init__(self) -> None:
        self._start = _Clock.now()

    def cores(self) -> float | None:
        """None where the system does not say (elsewhere than on Linux)."""
        now = _Clock.now()
        if now.all is None or self._start.all is None or now.wall == self._start.wall:
            return None
        others = (now.all - self._start.all) - (now.own - self._start.own)
        return max(0.0, others / (now.wall - self._start.wall))
