"""All models of one server: names, loading and unloading, and the memory that they share.

A model is `unloaded`, `loading`, `loaded` or, after its worker died, `restarting`. With a budget of memory each model
keeps to an even share of it (its KV cache is sized for that), so that its context never depends on what else is loaded.
When one has to be loaded and the budget is used up, others make room (`room`). One that cannot be loaded is not tried
again at once (`failures`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any

from openherd.errors import HerdError
from openherd.serve.front.errors import ApiError, unavailable
from openherd.serve.front.failures import LoadFailures
from openherd.serve.front.room import Room
from openherd.serve.front.workers import MakeRoom, ModelSpec, ModelWorker

Tell = Callable[[dict[str, Any]], None]

# Processes that load, or wait for room to load; further loads wait without one.
MAX_LOADS = 4
_LOOK_AGAIN_S = 0.05


class ModelPool:
    """The models of one server. The first is the one meant by requests that name none."""

    def __init__(self, specs: Sequence[ModelSpec], *, memory: int | None, patience_s: float, tell: Tell) -> None:
        """`memory`: bytes for all models together; None: one model, which takes what it finds.

        `patience_s`: how long requests wait for a model, and a model for its room.
        """
        share = None if memory is None else memory // len(specs)
        self.workers = [ModelWorker(spec, tell=tell, share=share) for spec in specs]
        self.has_started = False
        self._room = None if memory is None else Room(self.workers, memory, patience_s, self._unload)
        self._patience_s = patience_s
        self._tell = tell
        self._bases = {worker.spec.name: worker for worker in self.workers}
        self._adapters = {name: worker for worker in self.workers for name in worker.spec.adapters}
        self._loads: dict[str, asyncio.Task[None]] = {}
        self._failures = LoadFailures()
        self._may_load = asyncio.Semaphore(MAX_LOADS)

    @property
    def names(self) -> list[str]:
        """What requests can name: models, each followed by its adapters."""
        return [name for worker in self.workers for name in (worker.spec.name, *worker.spec.adapters)]

    @property
    def is_ready(self) -> bool:
        """Whether the start is over, and there is a model that takes requests or can be loaded for them: while one of
        several is restarted, the others go on."""
        return self.has_started and not all(worker.state == "restarting" for worker in self.workers)

    def find(self, name: str | None) -> tuple[ModelWorker, str | None]:
        """The worker and the adapter of that name. Raises `ApiError` 404 that lists what there is."""
        if name is None:
            return self.workers[0], None
        if name in self._bases:
            return self._bases[name], None
        if name in self._adapters:
            return self._adapters[name], name
        known = ", ".join(self.names)
        raise ApiError(
            404, f"no model is called {name[:80]!r}; there is {known}", param="model", code="model_not_found"
        )

    def has_failed(self, worker: ModelWorker) -> bool:
        """Whether the last attempt to load it failed."""
        return worker.spec.name in self._failures

    async def start(self) -> None:
        """Load what is not left for later, in order. Raises the `HerdError` of one that cannot be loaded."""
        for worker in self.workers:
            if not worker.spec.on_demand:
                await self._load(worker, evict=False)
        self.has_started = True

    async def wait_loaded(self, worker: ModelWorker, *, insists: bool = False) -> None:
        """Until requests can be sent to it. Raises `ApiError` 503 where that takes too long or cannot be.

        `insists`: try at once, however short ago it could not be loaded.
        """
        if worker.is_ready:
            return
        name = worker.spec.name
        if not self.has_started or worker.state == "restarting":
            raise unavailable(f"the model {name} is being loaded")
        if self._failures.is_too_soon(name) and name not in self._loads and not insists:
            raise self._failures.refusal(name)
        try:
            async with asyncio.timeout(self._patience_s):
                await self.load(worker)
        except TimeoutError:
            raise unavailable(f"the model {name} is still being loaded", retry_after_s=5) from None
        except HerdError:
            raise self._failures.refusal(name) from None

    async def load(self, worker: ModelWorker) -> None:
        """Load it, or join the load that goes on, which does not end with the one who waits.

        Raises `ApiError` 503 when it was cancelled, and `HerdError`s.
        """
        if worker.is_ready:
            return
        name = worker.spec.name
        if name not in self._loads:
            self._loads[name] = asyncio.create_task(self._load(worker, evict=True))
            self._loads[name].add_done_callback(lambda task: self._load_ended(name, task))
        load = self._loads[name]
        await asyncio.wait((load,))
        if load.cancelled():
            raise unavailable(f"loading the model {name} was cancelled")
        load.result()

    async def unload(self, worker: ModelWorker, *, force: bool) -> None:
        """Give its memory back, or stop loading it. Raises `ApiError` 409 while it runs requests, unless `force`."""
        if not self.has_started:
            raise unavailable("the server is starting")
        if (load := self._loads.get(worker.spec.name)) is not None:
            _cancel(load)
            await asyncio.wait((load,))
        if worker.state == "unloaded":
            return
        if worker.num_calls and not force:
            raise ApiError(
                409,
                f"{worker.spec.name} runs {worker.num_calls} requests; force: true ends them",
                param="force",
                code="model_in_use",
            )
        await self._unload(worker, "it was asked for")

    def fail_all(self, message: str) -> None:
        """End all requests with an error, those too that wait for a model."""
        for load in self._loads.values():
            _cancel(load)
        for worker in self.workers:
            worker.fail_all(message)

    def kill(self) -> None:
        """End all processes at once, from a signal handler."""
        for worker in self.workers:
            if (pid := worker.pid) is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    async def stop(self) -> None:
        loads = tuple(self._loads.values())
        for load in loads:
            _cancel(load)
        await asyncio.gather(*loads, return_exceptions=True)
        for worker in self.workers:
            await worker.stop()

    async def _load(self, worker: ModelWorker, *, evict: bool) -> None:
        name = worker.spec.name
        while worker.state == "unloading":  # for another model; perhaps it can stay in the end
            await asyncio.sleep(_LOOK_AGAIN_S)
        if worker.is_ready:
            return
        if worker.state == "restarting":  # it died before it could be unloaded, and is being started already
            raise unavailable(f"the model {name} is being loaded")
        async with self._may_load:
            started = time.monotonic()
            try:
                await worker.start(self._room_for(evict=evict))
            except HerdError as error:
                self._failures.add(name, error)
                raise
        self._failures.clear(name)
        if self.has_started:
            self._tell(
                {"event": "model_loaded", "model": name, "pid": worker.pid, "seconds": time.monotonic() - started}
            )

    def _room_for(self, *, evict: bool) -> MakeRoom | None:
        if self._room is None:
            return None
        return self._room.in_turn if evict else self._room.at_start

    def _load_ended(self, name: str, load: asyncio.Task[None]) -> None:
        """Also when nobody waits any more."""
        del self._loads[name]
        if load.cancelled():
            self._tell({"event": "model_load_cancelled", "model": name})
        elif (error := load.exception()) is not None:
            self._tell({"event": "model_load_failed", "model": name, "message": str(error)})

    async def _unload(self, worker: ModelWorker, why: str) -> None:
        await worker.stop("was unloaded")
        self._tell({"event": "model_unloaded", "model": worker.spec.name, "why": why})


def _cancel(load: asyncio.Task[None]) -> None:
    """Once: a second time would stop it from giving back what it has taken."""
    if not load.cancelling():
        load.cancel()
