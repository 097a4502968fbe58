"""What this machine does: the rate of its largest matrix product, and the memory that a process takes.

The peak is measured, not looked up: a data sheet's figure holds at another clock, another core count and another
number type. It is what utilisation is a share of. Imports torch.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch

from openherd.kernels.cpu_name import cpu_name

_SIZES = {"cpu": (256, 1024), "cuda": (1024, 8192)}
"""Of square products: a first one, which tells whether the large one takes too long."""
_SECONDS, _LONGEST = 0.3, 4.0
"""For all products of a size, of which the fastest counts; and the longest that one of them may be expected to take."""


@dataclass(frozen=True, slots=True)
class Machine:
    """The device that computes."""

    name: str
    peak_flops: float  # per second, of a square matrix product in the number type of the run


def measure_machine(device: str, dtype: torch.dtype) -> Machine:
    """Takes half a second. `device`: cpu or cuda."""
    name = torch.cuda.get_device_name() if device == "cuda" else cpu_name() or "CPU"
    return Machine(name, measured_peak(device, dtype))


def measured_peak(device: str, dtype: torch.dtype) -> float:
    """FLOPs per second of the fastest of several [n, n] x [n, n] products, with the threads that torch has now."""
    small, large = _SIZES[device]
    peak = _product_rate(device, dtype, small)
    return max(peak, _product_rate(device, dtype, large)) if 2 * large**3 / peak < _LONGEST else peak


def _product_rate(device: str, dtype: torch.dtype, n: int) -> float:
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    out = a @ b
    fastest, end = float("inf"), _now(device) + _SECONDS
    while (began := _now(device)) < end:
        torch.mm(a, b, out=out)
        fastest = min(fastest, _now(device) - began)
    return 2 * n**3 / fastest


def resident_memory(device: torch.device) -> int:
    """Bytes in use: of this process on a CPU, by this process's tensors on a GPU; 0 where the system does not say."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else _status("VmRSS")


def peak_memory(device: torch.device) -> int:
    """The most that `resident_memory` has been since `forget_peak`."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _status("VmHWM")


def forget_peak(device: torch.device) -> bool:
    """Begin counting the peak anew; False where the system does not let us."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _now(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def _status(key: str) -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(key + ":")), 0)
