"""PyTorch made to give the same bits for the same step."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.utils.deterministic

deterministic_module: Any = torch.utils.deterministic


@contextmanager
def deterministic() -> Iterator[None]:
    """Algorithms that give the same bits each time, where PyTorch has them; it warns where it has not."""
    fix_workspace()
    before, warned = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    filled = deterministic_module.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    deterministic_module.fill_uninitialized_memory = False  # a debugging aid that writes every new tensor twice
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warned)
        deterministic_module.fill_uninitialized_memory = filled


def fix_workspace() -> None:
    """Before CUDA's library is first used, which reads it then: its choice of an algorithm depends on the workspace."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def seed_torch(seed: int, step: int, rank: int) -> None:
    """Random numbers of a step, which no step before it has any part in."""
    digest = hashlib.sha256(f"{seed} {step} {rank}".encode()).digest()
    number = int.from_bytes(digest[:8], "little")
    if torch.cuda.is_initialized():
        torch.manual_seed(number)
    else:  # seeding devices that are not in use keeps, each time, the stack of who asked: 1 ms, and memory
        torch.default_generator.manual_seed(number)
