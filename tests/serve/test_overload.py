"""S2 and S3: clients that leave, and more clients than there are places."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.serve.client import PARIS, Client
from tests.serve.conftest import FULL, SLACK, Server, serving

CHAT = "/v1/chat/completions"
LONG = {"messages": PARIS, "ignore_eos": True, "max_tokens": 1900, "temperature": 0}
QUEUE, SLOTS = 64, 32


@pytest.fixture(scope="module")
def crowded(default_model: Path) -> Iterator[Server]:
    with serving("--context", "2048", "--queue", str(QUEUE), "--max-seqs", str(SLOTS)) as server:
        yield server


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> float:
    """Seconds until it is so."""
    started = time.perf_counter()
    while not condition():
        assert time.perf_counter() - started < seconds, "it never was so"
        time.sleep(0.01)
    return time.perf_counter() - started


def is_empty(server: Client) -> bool:
    """Nothing runs or waits, and every KV block is back."""
    metrics = server.metrics()
    names = [f'openherd_engine_{name}{{model="smollm2"}}' for name in ("running", "waiting")]
    free, total = (metrics[f'openherd_engine_{name}_blocks{{model="smollm2"}}'] for name in ("free", "total"))
    return metrics["openherd_requests"] == 0 and all(metrics[name] == 0 for name in names) and free == total


def test_a_client_that_leaves_while_text_comes_frees_its_work(crowded: Server) -> None:
    """S2: within one decode step; the metrics say so after at most their own interval."""
    aborted = crowded.engine("aborted_total")
    with crowded.streaming(CHAT, LONG) as response:
        assert response.read(600)
        assert not is_empty(crowded), "it had ended by itself"
    assert wait_until(lambda: is_empty(crowded)) < 0.5 * SLACK
    assert crowded.engine("aborted_total") == aborted + 1
    assert crowded.metrics()["openherd_cancelled_requests_total"] >= 1


def test_a_client_that_leaves_a_whole_answer_frees_its_work(crowded: Server) -> None:
    aborted = crowded.engine("aborted_total")
    with pytest.raises(TimeoutError):
        crowded.post(CHAT, LONG, timeout=0.5)
    assert wait_until(lambda: is_empty(crowded)) < 0.5 * SLACK
    assert crowded.engine("aborted_total") == aborted + 1, "the request had ended by itself"


def test_a_queued_request_is_dropped_uncomputed(crowded: Server) -> None:
    """S2. One request of many choices has all slots; what waits behind it has computed nothing when it leaves."""
    wide = {**LONG, "n": SLOTS, "temperature": 1}
    with crowded.streaming(CHAT, wide) as response:
        assert response.read(2000)
        wait_until(lambda: crowded.engine("running") == SLOTS)
        computed = crowded.engine("prompt_tokens_total")
        other = {**LONG, "messages": [{"role": "user", "content": "Something quite different. " * 40}]}
        with crowded.streaming(CHAT, other) as queued:
            assert queued.status == 200
            wait_until(lambda: crowded.engine("waiting") == 1)
        wait_until(lambda: crowded.engine("waiting") == 0)
        assert crowded.engine("running") == SLOTS, "the slots were not all taken"
        assert crowded.engine("prompt_tokens_total") == computed
    wait_until(lambda: is_empty(crowded))


def test_cut_requests_leak_nothing(crowded: Server) -> None:
    """S2: requests cut at every stage, and every KV block is back."""
    num_cuts = 1000 if FULL else 120

    async def cut(number: int) -> None:
        body = json.dumps({**LONG, "stream": number % 2 == 0, "seed": number}).encode()
        reader, writer = await asyncio.open_connection(crowded.host, crowded.port)
        writer.write(
            b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
            % (CHAT.encode(), len(body))
        )
        writer.write(body)
        await writer.drain()
        await asyncio.sleep(0.013 * (number % 8))
        if number % 4 == 0:
            await reader.read(100)
        writer.close()

    async def cut_all() -> None:
        for first in range(0, num_cuts, 20):
            await asyncio.gather(*(cut(number) for number in range(first, first + 20)))

    aborted = crowded.engine("aborted_total")
    asyncio.run(cut_all())
    wait_until(lambda: is_empty(crowded), 60)
    assert crowded.engine("aborted_total") > aborted + num_cuts / 10, "nothing was cut in the engine"
    assert crowded.chat().text == "The capital of France is Paris."


def test_300_at_once_are_served_or_told_to_wait(crowded: Server) -> None:
    """S3: slots and queue are served; the rest get 429 with Retry-After at once, and no connection is reset."""
    body = json.dumps({"messages": PARIS, "max_tokens": 32, "ignore_eos": True, "temperature": 0}).encode()
    head = b"POST %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    head += b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n"

    async def ask(_: int) -> tuple[bytes, float]:
        reader, writer = await asyncio.open_connection(crowded.host, crowded.port)
        started = time.perf_counter()
        writer.write(head % (CHAT.encode(), len(body)) + body)
        answer = await reader.read()
        seconds = time.perf_counter() - started
        writer.close()
        return answer, seconds

    async def ask_all() -> list[tuple[bytes, float]]:
        return await asyncio.gather(*map(ask, range(300)))

    answers = asyncio.run(ask_all())
    served = [answer for answer, _ in answers if answer.startswith(b"HTTP/1.1 200 ")]
    refused = [(answer, seconds) for answer, seconds in answers if answer.startswith(b"HTTP/1.1 429 ")]
    assert len(served) + len(refused) == 300, "some connections were reset, or answered otherwise"
    assert len(served) >= SLOTS + QUEUE
    assert len(refused) >= 100, "the queue was never full"
    for answer, _ in refused:
        headers, _, content = answer.partition(b"\r\n\r\n")
        assert b"retry-after: " in headers.lower()
        assert json.loads(content)["error"]["code"] == "queue_full"
    seconds = sorted(seconds for _, seconds in refused)
    assert seconds[int(0.99 * len(seconds))] < 0.3 * SLACK, seconds[-5:]
    texts = {json.loads(answer.partition(b"\r\n\r\n")[2])["choices"][0]["message"]["content"] for answer in served}
    assert len(texts) == 1, "load changed an answer"
