"""What the pool promises when things happen at once, with workers whose processes are made up."""

from __future__ import annotations

import asyncio
import errno
import os
import time
from typing import Any

import pytest

from openherd.errors import CapacityError, HerdError
from openherd.serve.front.errors import ApiError
from openherd.serve.front.failures import FIRST_DELAY_S, LoadFailures
from openherd.serve.front.pool import ModelPool
from openherd.serve.front.workers import MakeRoom, ModelSpec, ModelWorker

NEEDS = 100
ON_DEMAND = [ModelSpec(name, f"{name}.gguf", on_demand=True) for name in ("alpha", "beta")]


@pytest.fixture
def slow_processes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Loads that do not end by themselves, and processes that take a moment to go; the list says what was reaped."""
    reaped: list[str] = []

    async def launch(self: ModelWorker, make_room: MakeRoom | None = None) -> Any:
        assert make_room is not None
        async with make_room(self, NEEDS):
            await asyncio.Event().wait()

    async def reap(self: ModelWorker) -> None:
        await asyncio.sleep(0.05)
        reaped.append(self.spec.name)

    monkeypatch.setattr(ModelWorker, "_launch", launch)
    monkeypatch.setattr(ModelWorker, "_reap", reap)
    return reaped


def test_a_load_that_is_cancelled_twice_gives_its_memory_back(slow_processes: list[str]) -> None:
    async def scenario() -> tuple[int, str]:
        pool = ModelPool(ON_DEMAND, memory=NEEDS, patience_s=5, tell=lambda news: None)
        await pool.start()
        alpha, _ = pool.find("alpha")
        load = asyncio.create_task(pool.load(alpha))
        while not alpha.reserved:
            await asyncio.sleep(0.01)
        first = asyncio.create_task(pool.unload(alpha, force=False))
        await asyncio.sleep(0.01)  # the first one's clean-up is on its way
        await asyncio.gather(first, pool.unload(alpha, force=False), load, return_exceptions=True)
        return alpha.reserved, alpha.state

    assert asyncio.run(scenario()) == (0, "unloaded")
    assert slow_processes == ["alpha"]


def test_a_model_larger_than_the_budget_is_a_failure_that_is_remembered(slow_processes: list[str]) -> None:
    async def scenario() -> tuple[bool, float]:
        pool = ModelPool(
            [ModelSpec("alpha", "a.gguf", on_demand=True)], memory=NEEDS - 1, patience_s=5, tell=lambda news: None
        )
        await pool.start()
        started = time.monotonic()
        with pytest.raises(CapacityError):
            await pool.load(pool.workers[0])
        await asyncio.sleep(0)
        return pool.has_failed(pool.workers[0]), time.monotonic() - started

    has_failed, seconds = asyncio.run(scenario())
    assert has_failed
    assert seconds < 3, "it is not waited for what never comes"


def refused(pool: ModelPool, **how: bool) -> ApiError:
    with pytest.raises(ApiError) as error:
        asyncio.run(_wait(pool, **how))
    return error.value


async def _wait(pool: ModelPool, **how: bool) -> None:
    if not pool.has_started:
        await pool.start()
    await pool.wait_loaded(pool.workers[0], **how)


def test_a_model_that_cannot_be_loaded_is_not_tried_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its requests are told when it will be; no process is started for them before. Who insists is tried at once."""
    num_tries = 0

    async def launch(self: ModelWorker, make_room: MakeRoom | None = None) -> Any:
        nonlocal num_tries
        num_tries += 1
        raise HerdError("the file is broken")

    monkeypatch.setattr(ModelWorker, "_launch", launch)
    pool = ModelPool(ON_DEMAND, memory=None, patience_s=5, tell=lambda news: None)
    for _ in range(20):
        error = refused(pool)
        assert (error.status, error.code, error.headers["Retry-After"]) == (503, "model_load_failed", "1")
    assert num_tries == 1
    assert refused(pool, insists=True).headers["Retry-After"] == "2"
    assert num_tries == 2


def test_the_delay_doubles_and_ends_with_success(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("openherd.serve.front.failures.time.monotonic", lambda: now[0])
    failures, delays = LoadFailures(), []
    for _ in range(9):
        failures.add("m", HerdError("broken"))
        delays.append(int(failures.refusal("m").headers["Retry-After"]))
        assert failures.is_too_soon("m")
        now[0] += delays[-1]
        assert not failures.is_too_soon("m")
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    failures.clear("m")
    assert "m" not in failures
    failures.add("m", CapacityError("too large"))
    assert failures.is_too_soon("m")
    assert "Retry-After" not in failures.refusal("m").headers, "time does not help"
    now[0] += FIRST_DELAY_S
    assert not failures.is_too_soon("m")


def test_a_process_that_cannot_be_started_is_a_503(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where there are no more processes or open files; the sockets made for it are closed."""
    news: list[dict[str, Any]] = []

    async def none_left(*command: str, **options: Any) -> Any:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(asyncio, "create_subprocess_exec", none_left)
    pool = ModelPool(ON_DEMAND, memory=None, patience_s=5, tell=news.append)
    before = len(os.listdir("/proc/self/fd"))
    error = refused(pool)
    assert (error.status, error.code) == (503, "model_load_failed")
    assert int(error.headers["Retry-After"]) >= 1
    assert set(error.body()["error"]) == {"message", "type", "param", "code"}
    assert news[0]["event"] == "model_load_failed"
    assert "no worker process could be started" in news[0]["message"]
    assert pool.workers[0].state == "unloaded"
    assert len(os.listdir("/proc/self/fd")) == before


def test_one_model_that_restarts_does_not_make_the_others_unready() -> None:
    pool = ModelPool(ON_DEMAND, memory=None, patience_s=5, tell=lambda news: None)
    assert not pool.is_ready, "it has not started"
    pool.has_started = True
    for state, is_ready in (("loaded", True), ("unloaded", True), ("restarting", False)):
        pool.workers[0]._state, pool.workers[1]._state = "restarting", state  # type: ignore[assignment]
        assert pool.is_ready is is_ready
