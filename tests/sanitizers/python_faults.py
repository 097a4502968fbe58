"""Mistakes made on purpose under Python: `python -m tests.sanitizers.python_faults read_poisoned|race`.

The process must leave a report. `read_poisoned` hands the core an array that is poisoned and `race` one that another
thread writes to: only a core that is built with checks notices.
"""

from __future__ import annotations

import ctypes
import sys
import threading

import numpy as np

from openherd import _native
from openherd.config import ModelConfig
from openherd.engine.native_backend import NativeBackend
from openherd.engine.protocols import KVSpec
from tests.parity.random_llama import float_source, random_weights
from tests.unit.native.native_models import batch_of, loaded

runtime = ctypes.CDLL(None)


def read_poisoned() -> None:
    x = np.ones((4, 64), np.float32)
    runtime.__asan_poison_memory_region(ctypes.c_void_p(x.ctypes.data), ctypes.c_size_t(x.nbytes))
    _native.quantize_activations(x, isa="portable")


def a_backend() -> NativeBackend:
    config = ModelConfig("llama", 64, 2, 4, 2, 16, 96, 101, 512)
    backend = NativeBackend(2)
    loaded(backend, config, float_source(random_weights(config, 1)), KVSpec())
    return backend


def race() -> None:
    backend = a_backend()
    batch = batch_of([(range(90), 0, range(6))])
    over = threading.Event()

    def write() -> None:  # without the GIL, as every call through ctypes
        while not over.is_set():
            runtime.__tsan_write4(ctypes.c_void_p(batch.token_ids.ctypes.data))

    writer = threading.Thread(target=write)
    writer.start()
    for _ in range(200):
        backend.forward(batch)
    over.set()
    writer.join()


if __name__ == "__main__":
    {"read_poisoned": read_poisoned, "race": race}[sys.argv[1]]()
