"""What the front makes of a worker's frames: what requests have used when they end badly, and frames that are none."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from types import SimpleNamespace
from typing import Any, cast

import pytest

from openherd.errors import EngineError
from openherd.serve.front import workers
from openherd.serve.front.access import Tenant
from openherd.serve.front.accounts import Account
from openherd.serve.front.calls import Call, Calls
from openherd.serve.front.metrics import Metrics
from openherd.serve.front.workers import ModelSpec, ModelWorker
from openherd.serve.keys import Key
from openherd.serve.lifecycle import Lifecycle
from openherd.serve.wire import pack, receive

ACCEPTED = {"id": 1, "type": "accepted", "prompt_tokens": 100, "seed": 1}
DELTA = {"id": 1, "type": "delta", "choice": 0, "text": "a", "tokens": None}
ERROR = {"id": 1, "type": "error", "status": 500, "message": "it failed", "param": None, "code": None}
READY = {"ready": {"numerics_id": "n", "stats": {}}}
FRAME = {"events": [ACCEPTED, DELTA], "used": [[1, 64, 3]]}


class Ending:
    """One call of a key that may use 1,000 tokens, and what of them it is charged in the end."""

    def __init__(self) -> None:
        self.tenant = Tenant(Key("k", b"", tokens=1000), clock=lambda: 0.0)
        self.metrics = Metrics(Lifecycle(), [])
        self.sent: list[dict[str, Any]] = []
        self.calls = Calls(self.sent.append)
        self.call = self.calls.begin({"op": "generate"})
        self.call.on_unfinished = Account(self.metrics.of("m"), self.tenant).unfinished

    @property
    def charged(self) -> float:
        assert self.tenant._tokens is not None
        return 1000 - self.tenant._tokens.left

    def counted(self, what: str) -> tuple[float, float]:
        """Requests and their tokens."""
        value = self.metrics.registry.get_sample_value
        return value(f"openherd_{what}_requests_total") or 0, value(f"openherd_{what}_completion_tokens_total") or 0


def test_a_request_whose_worker_died_is_charged_what_was_computed() -> None:
    ending = Ending()
    ending.calls.take(FRAME)
    ending.calls.take({"used": [[1, 100, 5]]})
    ending.calls.lose_all("the model died")
    ending.calls.lose_all("again")
    ending.call.cancel()
    assert ending.charged == 105
    assert ending.counted("failed") == (1, 5)
    assert ending.counted("cancelled") == (0, 0)
    assert len(ending.calls) == 0


def test_a_request_that_fails_late_is_charged_what_was_computed() -> None:
    ending = Ending()
    ending.calls.take(FRAME)
    ending.calls.take({"events": [ERROR], "used": [[1, 100, 7]]})
    ending.call.cancel()
    ending.calls.lose_all("and then the worker died")
    assert ending.charged == 107
    assert ending.counted("failed") == (1, 7)


def test_a_request_that_was_refused_costs_nothing() -> None:
    ending = Ending()
    ending.calls.take({"events": [{**ERROR, "status": 400}]})
    assert ending.charged == 0
    assert ending.counted("failed") == (0, 0)


@pytest.mark.parametrize("dies", [False, True])
def test_a_client_that_leaves_is_charged_what_was_computed(dies: bool) -> None:
    """Also where the worker dies, or the model is unloaded, before it has said how much that was."""
    ending = Ending()
    ending.calls.take(FRAME)
    ending.call.cancel()
    assert ending.sent[-1] == {"op": "cancel", "id": 1}
    assert ending.charged == 0
    if dies:
        ending.calls.lose_all("the model was unloaded")
    else:
        ending.calls.take({"events": [{"id": 1, "type": "cancelled", "prompt_tokens": 80, "completion_tokens": 3}]})
    assert ending.charged == (67 if dies else 83)
    assert ending.counted("cancelled") == (1, 3)


def test_an_answer_that_was_whole_when_the_worker_died_is_charged_once() -> None:
    ending = Ending()
    ending.calls.take(FRAME)
    ending.calls.lose_all("the model died")
    usage: Any = SimpleNamespace(prompt_tokens=100, completion_tokens=3, cached_tokens=0)
    Account(ending.metrics.of("m"), ending.tenant).finished(ending.call, usage)
    assert ending.charged == 67


WRONG_FRAMES: list[Any] = [
    {"events": 3},
    {"events": [3]},
    {"events": [{"type": "delta"}]},
    {"events": [{"id": "1", "type": "delta"}]},
    {"events": [{"id": 1, "type": "no such type"}]},
    {"events": [{"id": 1, "type": ["delta"]}]},
    {"events": [{**DELTA, "text": None}]},
    {"events": [{**ACCEPTED, "prompt_tokens": "many"}]},
    {"events": [{"id": 1, "type": "end", "choice": 0}]},
    {"events": [], "used": [[1, 2]]},
    {"events": [], "used": [[1, 2, "3"]]},
    {"used": {"1": 2}},
]


@pytest.mark.parametrize("frame", WRONG_FRAMES, ids=str)
def test_a_frame_that_says_nothing_known_is_an_error(frame: dict[str, Any]) -> None:
    ending = Ending()
    with pytest.raises(EngineError):
        ending.calls.take(frame)


NO_FRAMES = [
    struct.pack(">I", 5) + b"hello",
    struct.pack(">I", 4) + b"[1]\n",
    struct.pack(">I", 2) + b"\xff\xfe",
    struct.pack(">I", 40_000) + b"[" * 40_000,
    struct.pack(">I", 2**31) + b"{}",
    pack(WRONG_FRAMES[2]),
]


@pytest.mark.parametrize("data", NO_FRAMES, ids=range(len(NO_FRAMES)))
def test_a_worker_that_talks_nonsense_is_replaced(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    """As one that died (S12): requests end with an error, and the next process serves again."""
    ends: list[socket.socket] = []
    news: list[dict[str, Any]] = []

    async def start_process() -> Any:
        ours, theirs = socket.socketpair()
        ends.append(theirs)
        theirs.sendall(pack(READY))
        reader, writer = await asyncio.open_connection(sock=ours)
        killed = asyncio.Event()

        async def wait() -> int:
            await killed.wait()
            return -9

        return SimpleNamespace(pid=len(ends), kill=killed.set, wait=wait), reader, writer

    async def scenario() -> tuple[str, int, bool]:
        worker = ModelWorker(ModelSpec("m", "m.gguf"), tell=news.append)
        await worker.start()
        call = worker.call({"op": "generate"})
        told: list[Call] = []
        call.on_unfinished = told.append
        await asyncio.to_thread(ends[0].sendall, data)
        event = await call.next()
        assert told == [call]
        while len(ends) < 2 or not worker.is_ready:
            await asyncio.sleep(0.01)
        again = worker.call({"op": "tokenize"})
        ends[1].sendall(pack({"events": [{"id": again.id, "type": "value", "value": 7}]}))
        assert (await again.next())["value"] == 7
        restarts = worker.num_restarts
        await worker.stop()
        return event["message"], restarts, worker.state == "unloaded"

    monkeypatch.setattr(workers, "start_process", start_process)
    message, restarts, is_stopped = asyncio.run(asyncio.wait_for(scenario(), 20))
    for end in ends:
        end.close()
    assert "stopped unexpectedly" in message
    assert (restarts, is_stopped) == (1, True)
    assert [entry["event"] for entry in news] == ["worker_failed", "worker_died", "worker_restarted"]


@pytest.mark.parametrize("first", [{"ready": 3}, {"ready": {"stats": {}}}, {"failed": "no"}, {"needs": "much"}, {}])
def test_a_worker_that_begins_with_nonsense_cannot_be_loaded(
    monkeypatch: pytest.MonkeyPatch, first: dict[str, Any]
) -> None:
    killed: list[int] = []
    ends: list[socket.socket] = []

    async def start_process() -> Any:
        ours, theirs = socket.socketpair()
        theirs.sendall(pack(first))
        ends.append(theirs)
        reader, writer = await asyncio.open_connection(sock=ours)

        async def wait() -> int:
            return -9

        return cast(Any, SimpleNamespace(pid=1, kill=lambda: killed.append(1), wait=wait)), reader, writer

    monkeypatch.setattr(workers, "start_process", start_process)
    worker = ModelWorker(ModelSpec("m", "m.gguf"), tell=lambda news: None)
    with pytest.raises(EngineError):
        asyncio.run(asyncio.wait_for(worker.start(), 20))
    ends[0].close()
    assert worker.state == "unloaded"
    assert killed == [1]


def test_frames_are_read_as_they_were_written() -> None:
    async def scenario() -> Any:
        reader = asyncio.StreamReader()
        reader.feed_data(pack(FRAME))
        reader.feed_eof()
        return await receive(reader), await receive(reader)

    assert asyncio.run(scenario()) == (json.loads(json.dumps(FRAME)), None)
