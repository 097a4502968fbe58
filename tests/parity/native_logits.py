"""Logits of a model's files by the native core in float32."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from openherd.checkpoints import open_checkpoint
from openherd.engine.backends import make_backend
from openherd.engine.protocols import KVSpec, Limits
from tests.parity.batches import Rows, token_batch


def native_logits(
    path: Path,
    prompts: Iterable[Sequence[int]],
    recorded: Iterable[int],
    *,
    limits: Limits,
    num_blocks: int,
    blocks: Sequence[int],
) -> np.ndarray:
    """At the `recorded` rows of each prompt, whose cache lies in `blocks`: [prompts, recorded, V]."""
    checkpoint, wanted = open_checkpoint(path), list(recorded)
    backend = make_backend("native", 1)
    try:
        backend.load(checkpoint.config, checkpoint.tensors, KVSpec(dtype="f32"), limits, num_blocks=num_blocks)
        rows = [backend.logits(backend.forward(token_batch([Rows(ids, 0, blocks)]))).copy()[wanted] for ids in prompts]
    finally:
        backend.close()
    return np.stack(rows)
