"""The memory that all models share: who may load, who gives way, and in which order.

A load that finds room takes it. One that finds none waits in line, in order of arrival. The first in line has the idle
models unloaded, longest unused first, once that makes the room; and where models are in use all the time it does not
wait for a quiet moment for ever: after `TURN_S` the models that have been loaded longest take no new requests, end
those that they have, and are unloaded. Their new requests wait like those for any model that is not loaded, so that
models which do not fit together take turns. From when anything is unloaded for the first in line, nobody else takes
memory.

What has its room loads, one model after another: reading and packing weights takes all cores.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from openherd.errors import CapacityError
from openherd.serve.front.errors import unavailable
from openherd.serve.front.workers import ModelWorker

# A model that was used this short a while ago is not idle: a request that has just been given to it may be on its way.
IDLE_S = 1.0
# How long a model in use keeps its memory while another waits for it, and the least that a loaded model has of it.
TURN_S = 5.0
_LOOK_AGAIN_S = 0.05

Unload = Callable[[ModelWorker, str], Coroutine[Any, Any, None]]


@dataclass(eq=False, slots=True)
class _Waiting:
    """A load without room. `claims`: models are being unloaded for it."""

    worker: ModelWorker
    needs: int
    claims: bool = False
    since: float = field(default_factory=time.monotonic)


class Room:
    """`memory`: bytes for all of these models together. `unload` is told which model makes room, and why."""

    def __init__(self, workers: Sequence[ModelWorker], memory: int, patience_s: float, unload: Unload) -> None:
        self._workers = workers
        self._memory = memory
        self._patience_s = patience_s
        self._turn_s = min(TURN_S, patience_s / 2)
        self._unload = unload
        self._line: list[_Waiting] = []
        self._loading = asyncio.Lock()

    @asynccontextmanager
    async def at_start(self, worker: ModelWorker, needs: int) -> AsyncIterator[None]:
        """Nothing is unloaded again: models that do not fit together are a mistake of configuration."""
        self._check_possible(worker, needs)
        if self._free < needs:
            raise CapacityError(
                f"{worker.spec.name} needs {_mib(needs)} more than the other models leave of --memory {self._memory}: "
                f"{_mib(self._free)}",
                hint='give more, a smaller --context, or load = "demand" in the configuration',
            )
        worker.reserved = needs
        yield

    @asynccontextmanager
    async def in_turn(self, worker: ModelWorker, needs: int) -> AsyncIterator[None]:
        """Wait for the room and for the turn to load. Raises `CapacityError` where there never will be room, and
        `ApiError` 503 where there was none for too long."""
        self._check_possible(worker, needs)
        waiting = _Waiting(worker, needs)
        self._line.append(waiting)
        try:
            while not await self._has_room(waiting):
                if time.monotonic() - waiting.since > self._patience_s:
                    message = f"there is no room for {worker.spec.name}: the other models are in use"
                    raise unavailable(message, retry_after_s=5)
                await asyncio.sleep(_LOOK_AGAIN_S)
            worker.reserved = needs
        finally:
            self._line.remove(waiting)
            if waiting.claims:  # whoever was not needed in the end goes on
                for other in self._workers:
                    other.gives_way = False
        async with self._loading:
            yield

    async def _has_room(self, waiting: _Waiting) -> bool:
        """Whether it may take its room now; if not, and it is its turn, some of it is made."""
        if any(other.claims for other in self._line if other is not waiting):
            return False
        if self._free >= waiting.needs:
            return True
        if waiting is not self._line[0]:
            return False
        idle = self._idle()
        waiting.claims = waiting.claims or self._is_due(waiting, idle)
        if waiting.claims:
            if idle:
                # An unloading that was begun is brought to its end, whatever becomes of this load.
                await asyncio.shield(self._unload(idle[0], f"{waiting.worker.spec.name} needs the memory"))
            else:
                self._ask_to_give_way(waiting.needs)
        return self._free >= waiting.needs

    def _is_due(self, waiting: _Waiting, idle: Sequence[ModelWorker]) -> bool:
        """The idle models are enough, or it has waited its time."""
        enough = self._free + sum(worker.reserved for worker in idle) >= waiting.needs
        return enough or time.monotonic() - waiting.since >= self._turn_s

    def _idle(self) -> list[ModelWorker]:
        """Those that nobody uses, longest unused first."""
        now = time.monotonic()
        unused = [
            worker
            for worker in self._workers
            if worker.state in ("loaded", "unloading") and not worker.num_calls and now - worker.last_used > IDLE_S
        ]
        return sorted(unused, key=lambda worker: worker.last_used)

    def _ask_to_give_way(self, needs: int) -> None:
        """As many models as it takes, those first that were loaded first."""
        now = time.monotonic()
        coming = self._free + sum(worker.reserved for worker in self._workers if worker.gives_way)
        for worker in sorted(self._workers, key=lambda worker: worker.loaded_at):
            if coming >= needs:
                return
            if worker.is_ready and now - worker.loaded_at >= self._turn_s:
                worker.gives_way = True
                coming += worker.reserved

    def _check_possible(self, worker: ModelWorker, needs: int) -> None:
        if needs > self._memory:
            raise CapacityError(
                f"{worker.spec.name} needs {_mib(needs)}, and --memory gives {_mib(self._memory)} to all models",
                hint="give more --memory, or a smaller --context",
            )

    @property
    def _free(self) -> int:
        return self._memory - sum(worker.reserved for worker in self._workers)


def _mib(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:,.0f} MiB"
