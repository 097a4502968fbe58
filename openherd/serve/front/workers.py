"""The worker process as the front sees it: start, calls, death, restart, stop."""

from __future__ import annotations

import asyncio
import contextlib
import time
from asyncio.subprocess import Process
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

from openherd.errors import EngineError, HerdError, InputError
from openherd.options import EngineOptions
from openherd.serve.front.calls import Call, Calls
from openherd.serve.front.errors import unavailable
from openherd.serve.front.processes import start_process
from openherd.serve.wire import Frame, pack, receive

# A worker that dies is started again at once; one that keeps dying, after 1, 2, 4 ... seconds.
FIRST_DELAY_S = 1.0
MAX_DELAY_S = 30.0
STEADY_S = 30.0  # having run this long, it counts as healthy

State: TypeAlias = Literal["unloaded", "loading", "loaded", "unloading", "restarting"]
MakeRoom: TypeAlias = Callable[["ModelWorker", int], AbstractAsyncContextManager[None]]
"""Waits until a worker may take so many bytes, and for its turn to load; raises a `HerdError` where it never may."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What a worker loads, and the name that requests use."""

    name: str
    path: str
    engine: EngineOptions = field(default_factory=EngineOptions)
    template: str | None = None
    adapters: dict[str, str] = field(default_factory=dict)
    on_demand: bool = False  # loaded when first asked for, not at the start

    def start_frame(self, share: int | None) -> Frame:
        """`share`: bytes that the model should keep to; None: it shares memory with no other model."""
        return {
            "op": "start",
            "path": self.path,
            "share": share,
            "engine": asdict(self.engine),
            "template": self.template,
            "adapters": self.adapters,
        }


class ModelWorker:
    """Keeps one model's worker process running. `facts` says what it loaded, `stats` the engine's counters of now."""

    def __init__(self, spec: ModelSpec, *, tell: Callable[[dict[str, Any]], None], share: int | None = None) -> None:
        self.spec = spec
        self.reserved = 0  # bytes, of a model that has a share
        self.loaded_at = time.monotonic()
        self.gives_way = False  # it takes no new requests, since another model waits for its memory
        self.facts: dict[str, Any] = {}
        self.stats: dict[str, Any] = {}
        self.num_restarts = 0
        self._state: State = "unloaded"
        self._tell = tell
        self._share = share
        self._calls = Calls(self._send)
        self._process: Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._guard: asyncio.Task[None] | None = None
        self._changing = asyncio.Lock()  # no start while a stop is on its way

    @property
    def state(self) -> State:
        return "unloading" if self.gives_way and self._state == "loaded" else self._state

    @property
    def is_ready(self) -> bool:
        return self.state == "loaded"

    @property
    def num_calls(self) -> int:
        return len(self._calls)

    @property
    def last_used(self) -> float:
        """When it began or ended a request; it was loaded for somebody too, who is about to ask."""
        return max(self.loaded_at, self._calls.last_used)

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    async def start(self, make_room: MakeRoom | None = None) -> None:
        """Load the model, and watch over the process from then on. Raises the worker's `HerdError` if it cannot.

        Cancelled, it leaves nothing behind. `make_room` is asked about the memory of a model that has a share.
        """
        async with self._changing:
            self._state = "loading"
            try:
                reader = await self._launch(make_room)
            except BaseException:
                await self._end("could not be loaded")
                raise
            self._guard = asyncio.create_task(self._watch(reader))

    async def stop(self, why: str = "stopped") -> None:
        """End the process; what it was doing is lost. It can be started again."""
        async with self._changing:
            await self._end(why)

    async def _end(self, why: str) -> None:
        self._state = "unloaded"  # first: nothing new is sent to it
        self.gives_way = False
        if self._guard is not None:
            self._guard.cancel()
            await asyncio.gather(self._guard, return_exceptions=True)
            self._guard = None
        self._lost(f"the model {self.spec.name} {why}")
        await self._reap()
        self.reserved, self.stats = 0, {}

    def call(self, frame: Frame) -> Call:
        """Send a request. Raises `ApiError` 503 while the worker is being restarted."""
        if not self.is_ready or self._writer is None:
            raise unavailable(f"the model {self.spec.name} is being loaded")
        return self._calls.begin(frame)

    def fail_all(self, message: str) -> None:
        """End all calls with an error."""
        self._calls.cancel_all(message)

    def _send(self, frame: Frame) -> None:
        assert self._writer is not None  # calls are lost before it is
        self._writer.write(pack(frame))

    async def _launch(self, make_room: MakeRoom | None = None) -> asyncio.StreamReader:
        """Start a process and wait until its model is loaded. Without `make_room` it has the room it had before.

        Raises `HerdError`s; whatever it raises, no process is left.
        """
        try:
            self._process, reader, self._writer = await start_process()
            self._send(self.spec.start_frame(self._share))
            first = await receive(reader)
            if first is not None and "needs" in first:
                needs = _size(first["needs"])
                async with make_room(self, needs) if make_room else contextlib.nullcontext():
                    self.reserved = needs
                    self._send({"op": "load"})
                    first = await receive(reader)
            self.facts = _facts(first)
        except BaseException:
            self._lost(self._stopped)
            await self._reap()
            raise
        self.stats = self.facts["stats"]
        self._state = "loaded"
        self.loaded_at = time.monotonic()
        return reader

    async def _watch(self, reader: asyncio.StreamReader) -> None:
        """Hand events out; when the worker dies, say so to everybody waiting, and start another."""
        delay = 0.0
        while True:
            started = time.monotonic()
            await self._dispatch(reader)
            self._state, self.gives_way = "restarting", False
            self._lost(self._stopped)
            status = await self._reap()
            delay = 0.0 if time.monotonic() - started > STEADY_S else delay
            self._tell({"event": "worker_died", "model": self.spec.name, "status": status, "restart_in_s": delay})
            while True:
                await asyncio.sleep(delay)
                delay = min(max(2 * delay, FIRST_DELAY_S), MAX_DELAY_S)
                self.num_restarts += 1
                try:
                    reader = await self._launch()
                    break
                except HerdError as error:
                    self._tell({"event": "worker_failed", "model": self.spec.name, "message": str(error)})
            self._tell({"event": "worker_restarted", "model": self.spec.name, "pid": self.pid})

    async def _dispatch(self, reader: asyncio.StreamReader) -> None:
        """Until the worker is gone, or says what cannot be understood: it is then as good as dead."""
        try:
            while (frame := await receive(reader)) is not None:
                self._calls.take(frame)
                if isinstance(stats := frame.get("stats"), dict):
                    self.stats = stats
        except EngineError as error:
            self._tell({"event": "worker_failed", "model": self.spec.name, "message": str(error)})

    @property
    def _stopped(self) -> str:
        return f"the model {self.spec.name} stopped unexpectedly; it is being restarted"

    def _lost(self, message: str) -> None:
        """There is no process any more, or none that can be used: say so to everybody who waits for it."""
        self._calls.lose_all(message)
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    async def _reap(self) -> int | None:
        """Make sure that the process is gone; its exit status."""
        process = self._process
        if process is None:
            return None
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        status = await process.wait()
        self._process = None
        return status


def _facts(first: Frame | None) -> dict[str, Any]:
    """What the worker says of the model that it has loaded. Raises the `HerdError` that it says instead."""
    if first is None:
        raise HerdError("the worker process died while it loaded the model", hint="try: herd run MODEL -p hi")
    facts, failed = first.get("ready"), first.get("failed")
    if isinstance(facts, dict) and isinstance(facts.get("stats"), dict) and isinstance(facts.get("numerics_id"), str):
        return facts
    if not isinstance(failed, dict) or not isinstance(failed.get("message"), str):
        raise EngineError("the worker process said neither that the model is loaded nor why it cannot be")
    kind = InputError if failed.get("status") == InputError.exit_status else HerdError
    hint = failed.get("hint")
    raise kind(failed["message"], hint=hint if isinstance(hint, str) else None)


def _size(needs: Any) -> int:
    if not isinstance(needs, int) or needs < 0:
        raise EngineError("the worker process needs no number of bytes")
    return needs
