"""How much memory the KV cache may take, and how many blocks of context that makes."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from openherd.engine.protocols import MemoryPlan
from openherd.errors import CapacityError, OptionError

# Contexts that the default pool holds at once. A laptop rarely runs more long conversations together than this, and
# shorter sequences pack: four contexts of 8192 are thirty-two of 1024.
CONTEXTS = 4
# Of the memory left beside weights and scratch, so that the page cache and other programs keep the rest.
FREE_SHARE = 0.5
# What a model that shares a budget with others is worth loading for, where nobody asked for a context.
LEAST_CONTEXT = 2048

_MEMINFO = Path("/proc/meminfo")
_OWN_GROUPS = Path("/proc/self/cgroup")
_CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class KVPlan:
    """The KV cache that was chosen, and why."""

    num_blocks: int
    block_len: int
    block_bytes: int
    context: int  # most tokens of one sequence
    reason: str  # what bounded it

    @property
    def num_bytes(self) -> int:
        return self.num_blocks * self.block_bytes

    def __str__(self) -> str:
        tokens = self.num_blocks * self.block_len
        return (
            f"KV cache: {tokens:,} tokens in {self.num_blocks:,} blocks, {self.num_bytes / 2**20:,.0f} MiB "
            f"({self.reason}); context {self.context:,}"
        )


def plan_kv(
    memory: MemoryPlan, block_len: int, *, context: int | None, max_context: int, max_seqs: int, kv_memory: int | None
) -> KVPlan:
    """Choose pool and context. `context` is what was asked; without it the context shrinks to what fits.

    The pool takes `kv_memory` bytes where given, else `CONTEXTS` contexts within a share of the free memory. Raises
    `OptionError` for a context longer than the model's, `CapacityError` when the asked one, or not even a block, fits.
    """
    asked = context or max_context
    if asked > max_context:
        raise OptionError(f"context must be at most {max_context:,}, which the model was trained for, not {asked:,}")
    per_context = math.ceil(asked / block_len)
    if kv_memory is not None:
        num_blocks = room = kv_memory // memory.kv_block
        reason = f"kv_memory {kv_memory / 2**20:,.0f} MiB"
    else:
        free = max(0, free_memory() - memory.weights - memory.scratch)
        room, reason = int(free * FREE_SHARE) // memory.kv_block, f"half of the {free / 2**20:,.0f} MiB free"
        num_blocks = min(room, per_context * min(max_seqs, CONTEXTS))
    if (num_blocks < per_context and context is not None) or num_blocks < 1:
        needed = (per_context if context is not None else 1) * memory.kv_block
        raise CapacityError(
            f"a context of {asked:,} tokens needs {needed / 2**20:,.1f} MiB of KV cache, and there is room for "
            f"{room * memory.kv_block / 2**20:,.1f} MiB ({reason})",
            hint="Ask for a smaller --context, or give more with --kv-memory.",
        )
    if num_blocks < room:
        reason = f"{num_blocks / per_context:.3g} contexts"
    return KVPlan(num_blocks, block_len, memory.kv_block, min(asked, num_blocks * block_len), reason)


@dataclass(frozen=True, slots=True)
class KVBounds:
    """Bytes that a KV cache takes at the least and, where memory is plenty, at the most."""

    least: int
    most: int

    def within(self, room: int) -> int:
        """As much of `room` as is of use."""
        return max(self.least, min(self.most, room))


def bound_kv(block_bytes: int, block_len: int, *, context: int | None, max_context: int, max_seqs: int) -> KVBounds:
    """Of `plan_kv`'s choice: at least the asked context (or, of one that may shrink, `LEAST_CONTEXT` tokens)."""
    asked = context or max_context
    least = math.ceil((asked if context is not None else min(asked, LEAST_CONTEXT)) / block_len)
    most = math.ceil(asked / block_len) * min(max_seqs, CONTEXTS)
    return KVBounds(least * block_bytes, most * block_bytes)


def free_memory() -> int:
    """Bytes that can be taken without pushing others out: the system's, within the limit of this process's group."""
    return max(0, min(_system_free(), _cgroup_free()))


def total_memory() -> int:
    """Bytes that this process could ever have: the machine's, within the limits of this process's groups."""
    try:
        physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        physical = 2**63
    return min(physical, min((_group_limit(limit) for limit, _ in _group_files()), default=2**63))


def _group_limit(limit: Path) -> int:
    try:
        return int(limit.read_text())
    except (OSError, ValueError):  # no such group, or no limit: "max"
        return 2**63


def _system_free() -> int:
    """MemAvailable on Linux; elsewhere half of the physical memory, since no portable call tells what is free."""
    try:
        for line in _MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, OSError, ValueError):
        return 2**31


def _cgroup_free() -> int:
    """Bytes left within every memory limit on the way up this process's control groups; a very large number if none."""
    return min((_group_free(*files) for files in _group_files()), default=2**63)


def _group_files() -> Iterator[tuple[Path, Path]]:
    """(limit, usage) of this process's group and each group above it, in version 2 and version 1."""
    try:
        lines = _OWN_GROUPS.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, limit, usage = _CGROUPS, "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            root, limit, usage = _CGROUPS / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        group = PurePosixPath(path.lstrip("/"))
        for part in (group, *group.parents):
            yield root / part / limit, root / part / usage


def _group_free(limit: Path, usage: Path) -> int:
    """Bytes left in one group. File cache that the kernel can drop counts as used there, yet is free for the asking."""
    try:
        left = int(limit.read_text()) - int(usage.read_text())
    except (OSError, ValueError):  # no such group, or no limit: "max"
        return 2**63
    try:
        for line in (limit.parent / "memory.stat").read_text().splitlines():
            if line.startswith(("inactive_file ", "total_inactive_file ")):
                return left + int(line.split()[1])
    except (OSError, ValueError, IndexError):
        pass
    return left
