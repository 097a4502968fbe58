"""A client of a few lines, so that a test decides about every byte, and the grammar of a stream of events."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

JSON = {"Content-Type": "application/json"}
PARIS = [{"role": "user", "content": "What is the capital of France?"}]


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The body of an error, which must have OpenAI's shape and nothing else."""
        document = self.json
        assert set(document) == {"error"}, document
        assert set(document["error"]) == {"message", "type", "param", "code"}, document
        assert document["error"]["message"]
        return document["error"]

    @property
    def text(self) -> str:
        """What the first choice says."""
        assert self.status == 200, self.body
        choice = self.json["choices"][0]
        return choice["message"]["content"] if "message" in choice else choice["text"]


class Client:
    """Requests to one server, each on a connection of its own."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port

    def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float = 120,
    ) -> Answer:
        """`body`: bytes as they are, anything else as JSON."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        started = time.perf_counter()
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout)
        try:
            connection.request(method, path, data, dict(JSON if headers is None else headers))
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        return Answer(response.status, dict(response.headers), content, time.perf_counter() - started)

    def get(self, path: str, **options: Any) -> Answer:
        return self.send("GET", path, **options)

    def post(self, path: str, body: Any, **options: Any) -> Answer:
        return self.send("POST", path, body, **options)

    def chat(self, messages: Any = PARIS, **params: Any) -> Answer:
        return self.post("/v1/chat/completions", {"messages": messages, "temperature": 0, **params})

    def complete(self, prompt: Any, **params: Any) -> Answer:
        return self.post("/v1/completions", {"prompt": prompt, "temperature": 0, **params})

    @contextmanager
    def streaming(self, path: str, body: Any) -> Iterator[http.client.HTTPResponse]:
        """A response whose body has not been read; leaving closes the connection."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=120)
        connection.request("POST", path, json.dumps({**body, "stream": True}).encode(), JSON)
        try:
            yield connection.getresponse()
        finally:
            if connection.sock is not None:
                connection.sock.close()
            connection.close()

    @contextmanager
    def asking(self, path: str, body: Any) -> Iterator[None]:
        """A request on its way; leaving closes the connection, answered or not."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=120)
        connection.request("POST", path, json.dumps(body).encode(), JSON)
        try:
            yield
        finally:
            connection.close()

    def events(self, path: str, body: Any) -> list[Any]:
        """A whole stream: its JSON documents, and "[DONE]"."""
        with self.streaming(path, body) as response:
            assert response.status == 200, response.read()
            assert response.headers["Content-Type"].startswith("text/event-stream")
            return parse(response.read())

    def raw(self) -> socket.socket:
        return socket.create_connection((self.host, self.port), timeout=30)

    def metrics(self) -> dict[str, float]:
        """Every sample by its name with labels as /metrics writes them."""
        lines = self.get("/metrics").body.decode().splitlines()
        pairs = [line.rpartition(" ") for line in lines if line and not line.startswith("#")]
        return {name: float(value) for name, _, value in pairs}

    def engine(self, name: str) -> float:
        """One of the engine's counters."""
        found = [value for key, value in self.metrics().items() if key.startswith(f"openherd_engine_{name}{{")]
        assert len(found) == 1, name
        return found[0]


def parse(stream: bytes) -> list[Any]:
    """The events of a stream, which must consist of nothing but `data:` lines with an empty line after each."""
    assert stream.endswith(b"\n\n"), stream[-80:]
    blocks = stream.decode().removesuffix("\n\n").split("\n\n")
    for block in blocks:
        assert block.startswith("data: "), block
        assert "\n" not in block, block
    payloads = [block.removeprefix("data: ") for block in blocks]
    return [payload if payload == "[DONE]" else json.loads(payload) for payload in payloads]


def named_events(server: Client, path: str, body: Any) -> list[Any]:
    """A whole stream of an API whose events have names: each is its document's type, and there is no [DONE]."""
    with server.streaming(path, body) as response:
        stream = response.read()
        assert response.status == 200, stream
    assert stream.endswith(b"\n\n"), stream[-80:]
    events = []
    for block in stream.decode().removesuffix("\n\n").split("\n\n"):
        name, _, data = block.partition("\n")
        assert name.startswith("event: "), block
        assert data.startswith("data: "), block
        assert "\n" not in data, block
        events.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {events[-1]['type']}"
    return events


@dataclass(slots=True)
class Streamed:
    """What a stream said of one choice."""

    text: str = ""
    roles: int = 0
    finish_reason: str | None = None
    tokens: list[Any] | None = None


def check_chat_grammar(events: list[Any], *, n: int = 1, usage: bool = False) -> tuple[list[Streamed], Any]:
    """The choices and the usage of a chat stream. Asserts S7: one id; a role first and once, one finish reason and
    nothing after it for each choice; usage when asked, last, and only then; one [DONE] at the end."""
    assert events[-1] == "[DONE]"
    assert events.count("[DONE]") == 1
    chunks = events[:-1]
    assert len({(c["id"], c["created"], c["model"], c["object"], c["system_fingerprint"]) for c in chunks}) == 1
    assert chunks[0]["object"] == "chat.completion.chunk"
    found = None
    if usage:
        *chunks, last = chunks
        assert last["choices"] == []
        found = last["usage"]
        assert all(chunk["usage"] is None for chunk in chunks)
    else:
        assert all("usage" not in chunk for chunk in chunks)
    choices = [Streamed() for _ in range(n)]
    for chunk in chunks:
        (entry,) = chunk["choices"]
        choice = choices[entry["index"]]
        assert choice.finish_reason is None, "a chunk after the finish reason"
        if "role" in entry["delta"]:
            assert not choice.text
            choice.roles += 1
        assert choice.roles == 1
        choice.text += entry["delta"].get("content", "")
        choice.finish_reason = entry["finish_reason"]
        if entry["logprobs"]:
            choice.tokens = (choice.tokens or []) + entry["logprobs"]["content"]
    assert all(choice.finish_reason is not None for choice in choices)
    return choices, found
