"""The load itself: an open loop, whose requests come when they come, or a closed loop of users who wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from openherd.errors import HerdError
from openherd.workshop.load.exchange import REFUSED, Record, fetch, stream
from openherd.workshop.load.options import MAX_OPEN, LoadOptions
from openherd.workshop.load.plan import Ask, arrivals, asks
from openherd.workshop.load.summary import Run
from openherd.workshop.load.target import Target

Say = Callable[[str], None]

SAY_EVERY_S = 5.0
PROBE_TIMEOUT_S = 10.0


def run(model: str | None, options: LoadOptions, say: Say) -> Run:
    """Load the server. `model`: its name there; none: the first that the server lists.

    Raises `HerdError` when nothing answers at that address, or the server names no model.
    """
    assert options.server is not None
    target = Target.parse(options.server)
    return asyncio.run(_Load(model, options, target, say).run())


class _Load:
    def __init__(self, model: str | None, options: LoadOptions, target: Target, say: Say) -> None:
        self._model = model
        self._options = options
        self._target = target
        self._say = say
        self._records: list[Record] = []
        self._open = asyncio.Semaphore(MAX_OPEN)
        self._num_held = 0  # had to wait for a connection of ours
        self._asks = asks(options, "load")

    async def run(self) -> Run:
        model = self._model or await self._first_model()
        self._body = {
            "model": model,
            "temperature": self._options.temperature,
            "stream": True,
            "stream_options": {"include_usage": True},
            **({"ignore_eos": True} if self._options.ignore_eos else {}),
        }
        await self._warm_up()
        telling = asyncio.create_task(self._tell())
        loop = asyncio.get_running_loop()
        started, cpu = loop.time(), time.process_time()
        try:
            await (self._open_loop(started) if self._options.rate is not None else self._closed_loop(started))
        finally:
            telling.cancel()
        wall = loop.time() - started
        return Run(model, self._records, started, wall, (time.process_time() - cpu) / wall, self._num_held)

    async def _first_model(self) -> str:
        document, record = await fetch(self._target, "/models", timeout=PROBE_TIMEOUT_S)
        if record.failure is not None:
            raise HerdError(
                f"{self._options.server} does not list its models: {record.failure}, {record.said}",
                hint=_hint(record.failure),
            )
        match document:
            case {"data": [{"id": str(name)}, *_]}:
                return name
        raise HerdError(f"{self._options.server} lists no models", hint="try: herd bench MODEL --server URL")

    async def _warm_up(self) -> None:
        """One after another. Raises `HerdError` when the first is not answered: the load would not be either."""
        for number, ask in enumerate(islice(asks(self._options, "warmup"), self._options.warmup)):
            record = await self._send(ask, asyncio.get_running_loop().time())
            if number == 0 and record.failure is not None:
                raise HerdError(f"{self._options.server} answers a first request with: {record.failure}, {record.said}")

    async def _open_loop(self, started: float) -> None:
        """Requests are sent when they are due, whatever became of those before."""
        loop = asyncio.get_running_loop()
        options = self._options
        assert options.rate is not None
        async with asyncio.TaskGroup() as group:
            for moment in islice(arrivals(options.rate, options.seed), options.num_requests):
                if options.duration is not None and moment >= options.duration:
                    break
                await asyncio.sleep(started + moment - loop.time())
                group.create_task(self._one(next(self._asks), started + moment))

    async def _closed_loop(self, started: float) -> None:
        """Each user asks again when answered; one who is told to come back later does."""
        todo = iter(range(self._options.num_requests)) if self._options.num_requests is not None else None
        assert self._options.users is not None
        async with asyncio.TaskGroup() as group:
            for _ in range(self._options.users):
                group.create_task(self._user(started, todo))

    async def _user(self, started: float, todo: Iterator[int] | None) -> None:
        loop = asyncio.get_running_loop()
        duration = self._options.duration
        while duration is None or loop.time() < started + duration:
            if todo is not None and next(todo, None) is None:
                return
            record = await self._one(next(self._asks), loop.time())
            if record.failure is not None:
                # Not at once again, for a server that refuses everything would be asked thousands of times a second.
                await asyncio.sleep(record.retry_after or 0.1)

    async def _one(self, ask: Ask, due: float) -> Record:
        self._num_held += self._open.locked()
        async with self._open:
            record = await self._send(ask, due)
        self._records.append(record)
        return record

    async def _send(self, ask: Ask, due: float) -> Record:
        body: dict[str, Any] = {**self._body, "messages": ask.messages, "max_tokens": ask.max_tokens}
        record = Record(due)
        await stream(self._target, body, record, timeout=self._options.timeout)
        return record

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(SAY_EVERY_S)
            ended = len(self._records)
            failed = sum(record.failure is not None for record in self._records)
            self._say(f"{ended} requests have ended" + (f", {failed} of them failed" if failed else ""))


def _hint(failure: str) -> str:
    """What to try when a server does not even list its models."""
    if failure == "http 401":
        return "try: OPENHERD_API_KEY=KEY herd bench --server URL"
    if failure == REFUSED:
        return "Nothing listens there; herd serve starts a server and says its address."
    return "try: herd bench MODEL --server URL, with the model's name there"
