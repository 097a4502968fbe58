"""Models that share memory take turns: in order of arrival, and also where those that have it are never idle."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from openherd.serve.front import room as room_module
from openherd.serve.front.errors import ApiError
from openherd.serve.front.room import Room
from openherd.serve.front.workers import ModelSpec, ModelWorker

NEEDS = 100
TURN_S = 0.2


class Herd:
    """Models of equal size of which two fit, without processes; requests of theirs are numbers only."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, patience_s: float = 5.0) -> None:
        monkeypatch.setattr(room_module, "TURN_S", TURN_S)
        monkeypatch.setattr(room_module, "IDLE_S", 0.05)
        names = ("alpha", "beta", "gamma", "delta")
        self.workers = {name: ModelWorker(ModelSpec(name, "x"), tell=lambda news: None) for name in names}
        self.room = Room(tuple(self.workers.values()), 2 * NEEDS, patience_s, self._unload)
        self.unloaded: list[str] = []
        self.loaded: list[str] = []

    def __getitem__(self, name: str) -> ModelWorker:
        return self.workers[name]

    async def load(self, name: str) -> None:
        worker = self[name]
        async with self.room.in_turn(worker, NEEDS):
            worker._state = "loaded"
            worker.loaded_at = asyncio.get_running_loop().time()
            self.loaded.append(name)

    @asynccontextmanager
    async def in_use(self, *names: str) -> AsyncIterator[None]:
        """Requests that overlap, so that these models are never idle while they take any."""
        users = [asyncio.create_task(self._use(self[name], offset)) for name in names for offset in (0, 0.02)]
        await asyncio.sleep(0.03)
        try:
            yield
        finally:
            for user in users:
                user.cancel()

    async def _use(self, worker: ModelWorker, offset: float) -> None:
        worker._calls._send = lambda frame: None
        await asyncio.sleep(offset)
        while True:
            if worker.is_ready:
                call = worker._calls.begin({})
                await asyncio.sleep(0.04)
                call.finish()
            else:
                await asyncio.sleep(0.01)

    async def _unload(self, worker: ModelWorker, why: str) -> None:
        assert not worker.num_calls, "a request was cut off"
        self.unloaded.append(worker.spec.name)
        await worker.stop()


def test_a_model_gets_its_turn_although_the_others_are_never_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> Herd:
        herd = Herd(monkeypatch)
        await herd.load("alpha")
        await asyncio.sleep(0.05)
        await herd.load("beta")
        async with herd.in_use("alpha", "beta", "gamma"):
            started = asyncio.get_running_loop().time()
            await herd.load("gamma")
            assert asyncio.get_running_loop().time() - started >= TURN_S * 0.9, "others keep their memory for a turn"
            await herd.load("alpha")
            return herd

    herd = asyncio.run(scenario())
    assert herd.unloaded == ["alpha", "beta"], "the one that was loaded first gives way first"
    assert herd.loaded == ["alpha", "beta", "gamma", "alpha"]
    assert not any(worker.gives_way for worker in herd.workers.values())


def test_loads_that_wait_are_served_in_order_of_arrival(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> list[str]:
        herd = Herd(monkeypatch)
        await herd.load("alpha")
        await herd.load("beta")
        async with herd.in_use("alpha", "beta"):
            gamma = asyncio.create_task(herd.load("gamma"))
            await asyncio.sleep(0.02)
            delta = asyncio.create_task(herd.load("delta"))
            await asyncio.gather(gamma, delta)
        return herd.loaded

    assert asyncio.run(scenario()) == ["alpha", "beta", "gamma", "delta"]


def test_a_load_without_room_holds_up_nobody_who_has_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """gamma needs everything, and beta, which is in use, leaves room for delta: it does not wait for gamma's turn."""

    async def scenario() -> list[str]:
        herd = Herd(monkeypatch)
        await herd.load("beta")

        async def load_gamma() -> None:
            async with herd.room.in_turn(herd["gamma"], 2 * NEEDS):
                herd.loaded.append("gamma")

        async with herd.in_use("beta"):
            gamma = asyncio.create_task(load_gamma())
            await asyncio.sleep(0.02)
            async with asyncio.timeout(TURN_S / 2):
                await herd.load("delta")
            await gamma
        return herd.loaded

    assert asyncio.run(scenario()) == ["beta", "delta", "gamma"]


def test_a_model_that_was_asked_to_give_way_for_nothing_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> tuple[Any, ...]:
        herd = Herd(monkeypatch, patience_s=0.5)
        await herd.load("alpha")
        await herd.load("beta")
        for worker in herd.workers.values():
            worker._calls._send = lambda frame: None
        endless = [herd[name]._calls.begin({}) for name in ("alpha", "beta")]
        gamma = asyncio.create_task(herd.load("gamma"))
        await asyncio.sleep(0.4)
        meanwhile = herd["alpha"].state
        with pytest.raises(ApiError, match="no room for gamma") as error:
            await gamma
        return meanwhile, herd["alpha"].state, error.value.status, "Retry-After" in error.value.headers, len(endless)

    assert asyncio.run(scenario()) == ("unloading", "loaded", 503, True, 2)
