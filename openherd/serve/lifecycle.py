"""From loading to stopped: whether requests are taken, how many run, and when the last one has ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Lifecycle:
    """One for a server. `is_draining` is set once and stays: running answers end, nothing new begins."""

    def __init__(self) -> None:
        self.is_draining = False
        self.num_requests = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._at_drain: set[Callable[[], None]] = set()

    @contextmanager
    def request(self) -> Iterator[None]:
        """Around an admitted request, from its place to the last byte of its answer."""
        self.num_requests += 1
        self._idle.clear()
        try:
            yield
        finally:
            self.num_requests -= 1
            if self.num_requests == 0:
                self._idle.set()

    def begin_drain(self) -> None:
        self.is_draining = True
        for act in tuple(self._at_drain):
            act()

    @contextmanager
    def at_drain(self, act: Callable[[], None]) -> Iterator[None]:
        """Inside, `act` is called once if draining begins."""
        self._at_drain.add(act)
        try:
            yield
        finally:
            self._at_drain.discard(act)

    async def wait_idle(self, seconds: float) -> bool:
        """Until no admitted request is left; False when that takes longer than `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True
