"""A server that answers as its address says: well, badly, or not at all. Each fault is counted where it is done."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

WORDS = ("The", " capital", " is", " Paris", ".")
OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
ENDLESS_BYTES = 3 * 2**20


def event(document: Any) -> bytes:
    return b"data: " + (document if isinstance(document, bytes) else json.dumps(document).encode()) + b"\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def text(piece: str, finish_reason: str | None = None) -> bytes:
    return event({"choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": finish_reason}]})


USAGE = event({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 10}})
ANSWER = b"".join(map(text, WORDS)) + text("", "stop")
RAW = {
    # name: what is written before the connection is closed
    "not-http": b"\x16\x03\x01 nonsense\r\n\r\n",
    "nothing": b"",
    "half-head": b"HTTP/1.1 200 OK\r\nContent-",
    "not-sse": CHUNKED + chunk(b"<html>hello\n\n</html>\n") + b"0\r\n\r\n",
    "not-json": CHUNKED + chunk(event(b"{half")) + b"0\r\n\r\n",
    "not-a-chunk": CHUNKED + chunk(event({"choices": [1]})) + b"0\r\n\r\n",
    "a-list": CHUNKED + chunk(event([])) + b"0\r\n\r\n",
    "deep": CHUNKED + chunk(event(b"[" * 200_000)) + b"0\r\n\r\n",
    "bad-usage": CHUNKED + chunk(event({"choices": [], "usage": {"prompt_tokens": -1, "completion_tokens": 1e9}})),
    "bad-chunk": CHUNKED + b"zz\r\n",
    "cut": CHUNKED + chunk(text("The")),
    "cut-length": OK + b"Content-Length: 5000\r\n\r\n" + text("The"),
    "no-finish": CHUNKED + chunk(text("The")) + b"0\r\n\r\n",
    "error-event": CHUNKED
    + chunk(text("The") + event({"error": {"message": "the\x1b[31m model died"}}))
    + b"0\r\n\r\n",
    "gzip": OK + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
    "500": b"HTTP/1.1 500 Oops\r\nContent-Length: 9\r\n\r\n<h1>\x1bno!!",
    "upgrade": b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nabc",
    "endless-head": b"HTTP/1.1 200 OK\r\nX: " + b"a" * ENDLESS_BYTES,
    "endless-event": CHUNKED + chunk(b"data: " + b"a" * ENDLESS_BYTES),
    "no-usage": CHUNKED + chunk(ANSWER + event(b"[DONE]")) + b"0\r\n\r\n",
    "no-done": CHUNKED + chunk(ANSWER) + b"0\r\n\r\n",
    "no-length": OK + b"\r\n: a comment\nevent: message\n" + ANSWER + USAGE + event(b"[DONE]"),
    "continue": b"HTTP/1.1 100 Continue\r\n\r\n" + CHUNKED + chunk(ANSWER + event(b"[DONE]")) + b"0\r\n\r\n",
}


class StandIn:
    """`url(NAME)` is a base URL whose chat completions behave like NAME. `done` counts what was done."""

    def __init__(self) -> None:
        self.done: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.heads: list[bytes] = []
        self.moments: list[float] = []
        self.most_at_once = 0
        self.port = 0
        self._now = 0
        self._turn = asyncio.Lock()

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.port}/{name}/v1"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        self.moments.append(time.monotonic())
        try:
            await self._answer(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._now -= 1
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        name = head.split()[1].split(b"/")[1].decode()
        self.done[name] += 1
        if head.startswith(b"GET"):
            listed = json.dumps({"data": [{"id": "stand-in"}] if name != "no-models" else []}).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(listed), listed))
            return await writer.drain()
        length = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-l"))
        self.bodies.append(json.loads(await reader.readexactly(length)))
        await self._behave(name, writer)
        await writer.drain()

    async def _behave(self, name: str, writer: asyncio.StreamWriter) -> None:
        if name in RAW:
            writer.write(RAW[name])
        elif name == "never":
            await asyncio.sleep(30)
        elif name == "one-at-a-time":
            async with self._turn:
                await asyncio.sleep(0.05)
                await self._well(writer, 0)
        elif name == "busy-once" and self.done[name] == 1:
            error = b'{"error": {"message": "come back later"}}'
            head = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: %d\r\n\r\n" % len(error)
            writer.write(head + error)
        elif name.startswith("redirect-"):
            place = name.removeprefix("redirect-").encode()
            writer.write(
                b"HTTP/1.1 307 x\r\nLocation: http://127.0.0.1:%s/good/v1\r\nContent-Length: 0\r\n\r\n" % place
            )
        else:
            await self._well(writer, 0.02)

    async def _well(self, writer: asyncio.StreamWriter, gap: float) -> None:
        writer.write(CHUNKED)
        for word in WORDS:
            await asyncio.sleep(gap)
            data = text(word)
            writer.write(chunk(data[:9]))  # an event comes in two pieces
            writer.write(chunk(data[9:]))
            await writer.drain()
        writer.write(chunk(text("", "stop") + USAGE + event(b"[DONE]")) + b"0\r\n\r\n")


@contextmanager
def standing_in() -> Iterator[StandIn]:
    """In a thread of its own, until left."""
    stand_in = StandIn()
    loop = asyncio.new_event_loop()

    async def start() -> asyncio.Server:
        return await asyncio.start_server(stand_in.serve, "127.0.0.1", 0)

    thread = threading.Thread(target=loop.run_forever)
    server = loop.run_until_complete(start())
    stand_in.port = server.sockets[0].getsockname()[1]
    thread.start()
    try:
        yield stand_in
    finally:
        asyncio.run_coroutine_threadsafe(_stop(server), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


async def _stop(server: asyncio.Server) -> None:
    server.close()
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
