"""What this machine can do at best, measured: how fast its memory is read, and how fast it multiplies int8.

Decoding reads every weight for a token, prefill multiplies every weight with each: these two rates bound them. Both are
measured with the instruction set and the thread pool of the engine, by loops that do nothing else.
Not covered: the rate of float multiplications, by which files of BF16 and F16 weights are bound.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from openherd import _native
from openherd.kernels.native import default_isa, make_pool

# A sample reads so much: some 15 ms, as long as a few decode steps of a small model.
READ_BYTES = 1 << 29
MULTIPLY_S = 0.01
# Places read in turn by a thread; which is faster depends on the size of the memory's pages.
STREAMS = (1, 4)
TRIALS = 3


class MachineLimits:
    """A buffer to read and pools of the given numbers of threads. Raises MemoryError when the buffer does not fit."""

    def __init__(self, nbytes: int, threads: Sequence[int]) -> None:
        self._isa = default_isa()
        self._pools = {count: make_pool(count) for count in threads}
        self._buffer = _native.ReadBuffer(nbytes, self._pools[max(threads)])
        self._passes = max(1, READ_BYTES // self._buffer.nbytes)
        self._streams = {count: self._faster_streams(count) for count in threads}
        self._rounds = self._rounds_for(MULTIPLY_S)

    @property
    def buffer_bytes(self) -> int:
        return self._buffer.nbytes

    def read_rate(self, threads: int) -> float:
        """Bytes a second, read from the buffer again and again."""
        return self._read(threads, self._streams[threads])

    def multiply_rate(self, threads: int) -> float:
        """Products of 4-bit codes and int8 a second, added up in int32."""
        return _native.multiply_rate(self._pools[threads], rounds=self._rounds, isa=self._isa)

    def _read(self, threads: int, streams: int) -> float:
        pool = self._pools[threads]
        return self._buffer.read_rate(pool, passes=self._passes, streams=streams, isa=self._isa)

    def _faster_streams(self, threads: int) -> int:
        return max(STREAMS, key=lambda streams: statistics.median(self._read(threads, streams) for _ in range(TRIALS)))

    def _rounds_for(self, seconds: float) -> int:
        """Rounds that take so long, from a trial."""
        threads = min(self._pools)
        rounds = 125
        for _ in range(2):  # the first call also wakes the vector units
            rate = _native.multiply_rate(self._pools[threads], rounds=rounds, isa=self._isa)
        per_round = _native.products_per_round(self._isa)
        return max(rounds, round(rate * seconds / threads / per_round))
