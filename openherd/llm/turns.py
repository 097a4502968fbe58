"""A lock that is handed on in order of arrival.

`threading.Lock` lets a thread that works in a loop take it again before a waiting one wakes, so a second caller could
wait for the first one's whole answer. Here the next in line owns it the moment it is released.
"""

from __future__ import annotations

from collections import deque
from threading import Lock


class FifoLock:
    """Not reentrant. `acquire(blocking=False)` never waits, also when called by a finaliser inside `acquire`."""

    def __init__(self) -> None:
        self._mutex = Lock()
        self._held = False
        self._waiting: deque[Lock] = deque()

    def acquire(self, blocking: bool = True) -> bool:
        if not self._mutex.acquire(blocking=blocking):
            return False
        try:
            if not self._held:
                self._held = True
                return True
            if not blocking:
                return False
            gate = Lock()
            gate.acquire()
            self._waiting.append(gate)
        finally:
            self._mutex.release()
        self._wait(gate)
        return True

    def release(self) -> None:
        with self._mutex:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._held = False

    def _wait(self, gate: Lock) -> None:
        """Wait to be handed the lock; an interrupt while waiting leaves the line."""
        try:
            gate.acquire()
        except BaseException:
            with self._mutex:
                was_waiting = gate in self._waiting
                if was_waiting:
                    self._waiting.remove(gate)
            if not was_waiting:
                self.release()
            raise
