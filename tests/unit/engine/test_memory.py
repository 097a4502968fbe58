"""The size of the KV cache: what bounds it, what it says, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from openherd.engine import memory
from openherd.engine.memory import free_memory, plan_kv
from openherd.engine.protocols import MemoryPlan
from openherd.errors import CapacityError, OptionError

MIB = 2**20
PLAN = MemoryPlan(weights=100 * MIB, scratch=20 * MIB, kv_block=MIB)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 1000 MiB available and no control group, in files under a folder."""
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "_OWN_GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(memory, "_CGROUPS", tmp_path / "groups")
    (tmp_path / "meminfo").write_text("MemTotal: 4096000 kB\nMemAvailable:    1024000 kB\n")
    return tmp_path


def group(machine: Path, name: str, limit: str, usage: int, inactive_file: int) -> None:
    folder = machine / "groups" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{usage}\n")
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {inactive_file}\n")


def test_free_memory_is_what_the_system_has_available(machine: Path) -> None:
    assert free_memory() == 1000 * MIB


def test_the_tightest_control_group_bounds_free_memory(machine: Path) -> None:
    (machine / "cgroup").write_text("0::/outer/inner\n")
    group(machine, "outer", str(300 * MIB), 200 * MIB, 50 * MIB)  # 150 left, with its droppable file cache
    group(machine, "outer/inner", "max", 100 * MIB, 0)
    assert free_memory() == 150 * MIB


def test_a_version_1_group_bounds_free_memory(machine: Path) -> None:
    (machine / "cgroup").write_text("5:cpu:/x\n4:memory:/box\n")
    folder = machine / "groups" / "memory" / "box"
    folder.mkdir(parents=True)
    (folder / "memory.limit_in_bytes").write_text(str(80 * MIB))
    (folder / "memory.usage_in_bytes").write_text(str(70 * MIB))
    assert free_memory() == 10 * MIB


def test_without_proc_half_of_the_physical_memory_counts(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (machine / "meminfo").unlink()
    sizes = {"SC_PHYS_PAGES": 1000, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr("os.sysconf", sizes.__getitem__)
    assert free_memory() == 1000 * 4096 // 2


def test_the_default_pool_holds_four_contexts(machine: Path) -> None:
    plan = plan_kv(PLAN, 16, context=None, max_context=640, max_seqs=32, kv_memory=None)
    assert (plan.num_blocks, plan.context) == (160, 640)
    assert str(plan) == "KV cache: 2,560 tokens in 160 blocks, 160 MiB (4 contexts); context 640"


def test_the_default_context_shrinks_to_half_of_the_free_memory(machine: Path) -> None:
    plan = plan_kv(PLAN, 16, context=None, max_context=100_000, max_seqs=32, kv_memory=None)
    assert (plan.num_blocks, plan.context) == (440, 440 * 16)  # (1000 - 120) / 2 MiB, a block each
    assert "half of the 880 MiB free" in str(plan)


def test_an_asked_context_that_does_not_fit_is_refused(machine: Path) -> None:
    with pytest.raises(CapacityError, match=r"100,000 tokens needs 6,250\.0 MiB.*room for 440\.0 MiB"):
        plan_kv(PLAN, 16, context=100_000, max_context=131072, max_seqs=32, kv_memory=None)


def test_given_kv_memory_is_used_whatever_is_free(machine: Path) -> None:
    plan = plan_kv(PLAN, 16, context=160, max_context=640, max_seqs=2, kv_memory=15 * MIB)
    assert (plan.num_blocks, plan.context) == (15, 160)
    assert plan_kv(PLAN, 16, context=160, max_context=640, max_seqs=2, kv_memory=900 * MIB).num_blocks == 900
    with pytest.raises(CapacityError, match="kv_memory 9 MiB"):
        plan_kv(PLAN, 16, context=160, max_context=640, max_seqs=2, kv_memory=9 * MIB)
    with pytest.raises(CapacityError, match="room for"):
        plan_kv(PLAN, 16, context=None, max_context=640, max_seqs=2, kv_memory=1)


def test_a_context_longer_than_the_model_was_trained_for_is_refused(machine: Path) -> None:
    with pytest.raises(OptionError, match="context must be at most 640, which the model was trained for, not 641"):
        plan_kv(PLAN, 16, context=641, max_context=640, max_seqs=2, kv_memory=None)
