"""What a call may cost: the CPU time and the memory of hostile input, whatever ran before in the process."""

import gc
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

TRIES = 3


@contextmanager
def only_new_objects() -> Iterator[None]:
    """The collector passes over what exists already: after an hour of tests that is most of a collection's time."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def within_cpu(seconds: float, call: Callable[[], T]) -> T:
    """The result of `call`, which takes at most `seconds` of CPU time in one of `TRIES` tries.

    A virtual machine's clock charges a process for time that its host gave to others. Such disturbances only ever add,
    and a call that is too slow is so every time, so the quickest try is the one nearest to the truth.
    """
    taken: list[float] = []
    for _ in range(TRIES):
        with only_new_objects():
            start = time.process_time()
            result = call()
            taken.append(time.process_time() - start)
        if taken[-1] <= seconds:
            return result
    raise AssertionError(f"{min(taken):.3f} seconds of CPU time at best, where {seconds} are allowed")


def within_memory(size: int, call: Callable[[], T]) -> T:
    """The result of `call`, whose Python objects never take more than `size` bytes at once."""
    tracemalloc.start()
    try:
        result = call()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= size, f"{peak} bytes at the peak, where {size} are allowed"
    return result
