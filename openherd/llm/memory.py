"""What a model takes, from its file's headers alone: how several models are made to share one budget of memory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from openherd.checkpoints import open_checkpoint
from openherd.engine.backends import make_backend
from openherd.engine.loading import memory_of
from openherd.options import EngineOptions

# A worker without a model: the interpreter, NumPy, the tokenizer's tables (60 MB is the bar of P6).
PROCESS_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class MemoryShare:
    """Options whose KV cache keeps a model within its share, and the bytes that it takes then, process and all."""

    options: EngineOptions
    num_bytes: int


def fit_share(path: str | Path, options: EngineOptions, share: int) -> MemoryShare:
    """Size the KV cache so that the model takes `share` bytes; more only where its least context needs more.

    The same file, options and share always give the same context, whatever else is loaded. Adapters are not counted.
    Raises what `open_checkpoint` and the options raise.
    """
    checkpoint = open_checkpoint(Path(path))
    backend = make_backend(options.backend, 1)
    try:
        memory, bounds = memory_of(backend, checkpoint.config, checkpoint.tensors, options)
    finally:
        backend.close()
    fixed = memory.weights + memory.scratch + PROCESS_BYTES
    kv = options.kv_memory if options.kv_memory is not None else bounds.within(share - fixed)
    return MemoryShare(replace(options, kv_memory=kv), fixed + kv)
