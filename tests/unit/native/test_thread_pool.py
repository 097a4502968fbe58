"""The pool under a model: forks, several models, several Python threads, odd sizes."""

from __future__ import annotations

import ctypes
import ctypes.util
import multiprocessing
import os
import platform
import threading
from multiprocessing.connection import Connection

import numpy as np
import pytest

from openherd._native import ThreadPool
from openherd.config import ModelConfig
from openherd.engine.native_backend import NativeBackend
from openherd.engine.protocols import Backend, KVSpec
from tests.parity.random_llama import float_source, random_weights
from tests.unit.native.native_models import batch_of, loaded

CONFIG = ModelConfig("llama", 64, 2, 4, 2, 16, 96, 101, 512)
IDS = list(range(1, 60))


def _backend(threads: int) -> Backend:
    return loaded(NativeBackend(threads), CONFIG, float_source(random_weights(CONFIG, 1)), KVSpec())


def _bits(backend: Backend) -> bytes:
    return backend.logits(backend.forward(batch_of([(IDS, 0, [0, 1, 2, 3])]))).tobytes()


@pytest.mark.parametrize("threads", [0, -1, 100_000])
def test_a_pool_of_no_size_is_refused(threads: int) -> None:
    with pytest.raises(ValueError, match="threads must be"):
        ThreadPool(threads)


def test_more_threads_than_cores_and_than_rows_still_finish() -> None:
    assert _bits(_backend(7)) == _bits(_backend(1))


def _answer(backend: Backend, pipe: Connection) -> None:
    pipe.send(_bits(backend))


def test_a_fork_computes_on_workers_of_its_own() -> None:
    """The parent's workers do not exist in the child, which once had to wait for them for ever."""
    backend = _backend(2)
    expected = _bits(backend)
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=_answer, args=(backend, theirs))
    child.start()
    assert ours.poll(60)
    assert ours.recv() == expected
    child.join(60)
    assert child.exitcode == 0
    assert _bits(backend) == expected


def test_backends_run_side_by_side_on_python_threads() -> None:
    """The core gives the GIL back, so both forwards are truly at once."""
    backends = [_backend(2) for _ in range(3)]
    expected = _bits(backends[0])
    seen: list[bytes] = []

    def work(backend: Backend) -> None:
        seen.extend(_bits(backend) for _ in range(10))

    workers = [threading.Thread(target=work, args=(backend,)) for backend in backends]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert len(seen) == 30
    assert set(seen) == {expected}


# FE_TOWARDZERO of <fenv.h>
TOWARD_ZERO = {"x86_64": 0xC00, "aarch64": 0xC00000}


@pytest.mark.skipif(platform.machine() not in TOWARD_ZERO, reason="the mode's number is not known here")
@pytest.mark.parametrize("threads", [1, 2])
def test_the_callers_rounding_mode_changes_no_bit(threads: int) -> None:
    """Else bits depend on which thread does a share: the mode, and with it FTZ, belongs to a thread."""
    backend = _backend(threads)
    expected = _bits(backend)
    libm = ctypes.CDLL(ctypes.util.find_library("m"))
    mode = TOWARD_ZERO[platform.machine()]
    nearest = libm.fegetround()
    assert libm.fesetround(mode) == 0
    try:
        assert libm.fegetround() == mode
        seen = {_bits(backend) for _ in range(20)}
        assert libm.fegetround() == mode  # which is the caller's again
    finally:
        libm.fesetround(nearest)
    assert seen == {expected}


def test_closing_ends_the_workers() -> None:
    before = len(_native_threads())
    backend = _backend(3)
    _bits(backend)
    assert len(_native_threads()) == before + 2
    backend.close()
    del backend
    assert len(_native_threads()) == before


def _native_threads() -> list[str]:
    return os.listdir("/proc/self/task")


def test_empty_logits_cost_nothing() -> None:
    backend = _backend(2)
    step = backend.forward(batch_of([(IDS, 0, [0, 1, 2, 3])], logit_rows=[]))
    assert backend.logits(step).shape == (0, 101)
    assert backend.score(step, np.zeros(0, np.int32), np.zeros(0, np.int32)).shape == (0,)
