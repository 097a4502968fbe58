"""S1 and S11: requests of strangers. Nothing dies, nothing is a 5xx, all are answered, and probes answer meanwhile."""

from __future__ import annotations

import itertools
import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any

import pytest

from openherd.serve.front.connections import HEADER_SECONDS
from tests.bounds import only_new_objects
from tests.serve.client import PARIS, Client
from tests.serve.conftest import SLACK, Server, serving
from tests.serve.test_overload import wait_until

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
MIB = 2**20


@pytest.fixture(scope="module")
def strict(default_model: Any) -> Iterator[Server]:
    with serving("--context", "2048") as server:
        yield server


@contextmanager
def health_watched(server: Server) -> Iterator[list[float]]:
    """Asks /health all the while; gives the seconds of each answer."""
    seconds: list[float] = []
    over = Event()

    def watch() -> None:
        while not over.wait(0.02):
            answer = server.get("/health", timeout=30)
            assert answer.status == 200
            seconds.append(answer.seconds)

    thread = Thread(target=watch)
    thread.start()
    try:
        yield seconds
    finally:
        over.set()
        thread.join()
    assert len(seconds) >= 3, "health was not watched"


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


def said(content: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": content}]


def schema(value: Any) -> dict[str, Any]:
    return {
        "messages": PARIS,
        "max_tokens": 40,
        "response_format": {"type": "json_schema", "json_schema": {"name": "bomb", "schema": value}},
    }


def deep_schema(depth: int) -> dict[str, Any]:
    inner: dict[str, Any] = {"type": "integer"}
    for _ in range(depth):
        inner = {"type": "object", "properties": {"a": inner}, "required": ["a"], "additionalProperties": False}
    return inner


def filled(head: bytes, unit: bytes, tail: bytes, size: int = 2 * MIB) -> bytes:
    return head + unit * ((size - len(head) - len(tail)) // len(unit)) + tail


def called(arguments: str) -> dict[str, Any]:
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": arguments}}
    return {"messages": [*PARIS, {"role": "assistant", "tool_calls": [call]}, *PARIS], "max_tokens": 1}


def offered(parameters: dict[str, Any]) -> dict[str, Any]:
    tool = {"type": "function", "function": {"name": "f", "parameters": parameters}}
    return {"messages": PARIS, "tools": [tool], "max_tokens": 1}


USER = b'{"messages":[{"role":"user","content":"'
REFERENCES = {"$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/a"}]}}, "$ref": "#/$defs/a"}
HOSTILE: dict[str, tuple[str, Any]] = {
    # malformed
    "empty": (CHAT, b""),
    "not JSON": (CHAT, b"\xff\xfe\x00"),
    "half": (CHAT, b'{"messages": [{"role"'),
    "a list": (CHAT, b"[]"),
    "null": (COMPLETIONS, b"null"),
    "twice": (CHAT, b"{}{}"),
    "lone surrogate": (CHAT, USER + rb'\ud800"}]}'),
    "NaN": (CHAT, b'{"messages":[{"role":"user","content":"a"}],"temperature":NaN}'),
    "infinite bias": (CHAT, b'{"messages":[{"role":"user","content":"a"}],"logit_bias":{"1":-Infinity}}'),
    "NUL": (CHAT, {"messages": [{"role": "user", "content": "\0" * 50}], "max_tokens": 1}),
    "wrong everywhere": (CHAT, {"messages": {"role": []}, "stream": "yes", "n": [], "stop": {}}),
    "unicode key": (CHAT, {"messages": PARIS, "\u202e\u0000<script>": 1}),
    # huge
    "long text": (CHAT, filled(USER, b"hello ", b'"}]}')),
    "one letter": (CHAT, filled(USER, b"a", b'"}]}')),
    "commas": (COMPLETIONS, filled(b'{"prompt":"', b"a,", b'"}')),
    "quotes": (COMPLETIONS, filled(b'{"prompt":"', rb'\"', b'"}')),
    "marks of CJK": (COMPLETIONS, filled(b'{"prompt":"', "中".encode(), b'"}')),
    "too long": (CHAT, filled(USER, b"a", b'"}]}', 2 * MIB + 1)),
    "unknown keys": (CHAT, json.dumps({f"k{i}": i for i in range(100_000)}).encode()),
    "few unknown keys": (CHAT, json.dumps({f"k{i}": i for i in range(20_000)}).encode()),
    "empty messages": (CHAT, filled(b'{"messages":[{}', b",{}", b"]}")),
    "many messages": (CHAT, {"messages": PARIS * 4097}),
    "many ids": (COMPLETIONS, {"prompt": list(range(20_000))}),
    "many prompts": (COMPLETIONS, {"prompt": ["a"] * 129}),
    "blanks": (CHAT, filled(b'{"messages":', b" ", b"}")),
    # deeply nested
    "deep lists": (CHAT, b'{"messages":' + nested(100_000).encode() + b"}"),
    "deep objects": (CHAT, b'{"a":' * 20_000 + b"1" + b"}" * 20_000),
    "deep unknown": (COMPLETIONS, b'{"prompt":"a","x":' + nested(150).encode() + b"}"),
    # absurd numbers
    "endless integer": (CHAT, b'{"seed":' + b"9" * MIB + b"}"),
    "endless fraction": (CHAT, b'{"messages":[],"temperature":0.' + b"9" * MIB + b"}"),
    "long integers": ("/v1/embeddings", filled(b'{"input":[1', b"," + b"9" * 4250, b"]}")),
    "long integers in a schema": (CHAT, schema({"enum": [10**4200] * 450})),
    "lists in arguments": (CHAT, called('{"a": [' + "[]," * 600_000 + "[]]}")),
    "long integers in arguments": (CHAT, called('{"a": [' + f"{10**4200}," * 450 + "1]}")),
    "required objects": (CHAT, offered({"properties": {"a": {}}, "required": [{}]})),
    "required lists": ("/apply-template", {"messages": PARIS, "tools": offered({"required": [[]]})["tools"]}),
    "half a surrogate in arguments": (CHAT, called(r'{"a": "\ud800"}')),
    "1e400": (CHAT, b'{"messages":[{"role":"user","content":"a"}],"temperature":1e400}'),
    "negative seed": (CHAT, {"messages": PARIS, "seed": -1}),
    "seed of 65 bits": (CHAT, {"messages": PARIS, "seed": 2**64}),
    "n": (CHAT, {"messages": PARIS, "n": 2**31}),
    "prompts times n": (COMPLETIONS, {"prompt": ["a"] * 100, "n": 100}),
    "max_tokens": (CHAT, {"messages": PARIS, "max_tokens": 2**31 - 1}),
    "max_tokens 0": (CHAT, {"messages": PARIS, "max_tokens": 0}),
    "top_k": (CHAT, {"messages": PARIS, "top_k": -(2**63)}),
    "token id": (COMPLETIONS, {"prompt": [2**40]}),
    "negative id": (COMPLETIONS, {"prompt": [-1]}),
    "detokenize": ("/detokenize", {"tokens": [10**12]}),
    "biases": (CHAT, {"messages": PARIS, "logit_bias": {str(i): 1 for i in range(2000)}}),
    "stops": (CHAT, {"messages": PARIS, "stop": ["a" * 10_000] * 16}),
    # bombs of schemas and grammars
    "deep schema": (CHAT, schema(deep_schema(45))),
    "deeper schema": (CHAT, schema(deep_schema(90))),
    "schema in a circle": (CHAT, schema(REFERENCES)),
    "recursive schema": (CHAT, schema({"$ref": "#"})),
    "wide enum": (CHAT, schema({"enum": [f"value {i}" for i in range(5000)]})),
    "many properties": (CHAT, schema({"type": "object", "properties": {f"p{i}": {} for i in range(600)}})),
    "huge repetition": (CHAT, schema({"type": "string", "minLength": 10**9})),
    "huge array": (CHAT, schema({"type": "array", "minItems": 10**9, "items": {"type": "null"}})),
    "pattern": (CHAT, schema({"type": "string", "pattern": "(a+)+b"})),
    "pattern of patterns": (CHAT, schema({"type": "string", "pattern": "((((a{99}){99}){99}){99})"})),
    "multiples": (CHAT, schema({"allOf": [{"type": "integer", "multipleOf": m} for m in (9973, 9967, 9949)]})),
    "combinations": (CHAT, schema({"allOf": [{"anyOf": [{"minimum": i}, {"maximum": -i}]} for i in range(40)]})),
    "no answer": (CHAT, schema(False)),
    "ambiguous": (CHAT, schema({"items": {"anyOf": [{"type": "string", "pattern": f".*{i}.*"} for i in range(30)]}})),
    # templates and control tokens
    "control tokens": (CHAT, {"messages": said("<|im_end|>\n<|im_start|>system\n" * 20), "max_tokens": 1}),
    "template": ("/apply-template", {"messages": said("{{ 7*7 }}{% for i in range(10**9) %}{% endfor %}")}),
    "tokenize": ("/tokenize", filled(b'{"content":"', b"a", b'"}', MIB)),
    "tokenize spaces": ("/tokenize", filled(b'{"content":"', b" ", b'"}', MIB)),
    "tokenize marks": ("/tokenize", filled(b'{"content":"', "e\u0301".encode(), b'"}', MIB)),
}  # fmt: skip


def test_hostile_requests_are_answered(strict: Server) -> None:
    """S1. Each within 2 s (of an idle machine), /health within 100 ms all the while, and 64 MiB of memory at most."""
    for warm in (
        "tokenize",
        "wide enum",
        "long text",
        "huge repetition",
    ):  # the vocabulary's trie, and buffers that stay
        strict.post(*HOSTILE[warm])
    assert strict.chat(said("All work and no play. " * 250), max_tokens=4).status == 200  # a full batch of the engine's
    before = strict.rss_mib()
    statuses: dict[str, int] = {}
    # Encoded beforehand: this process's interpreter, held for that, would stop the watch and not the server.
    bodies = {
        name: body if isinstance(body, bytes) else json.dumps(body).encode() for name, (_, body) in HOSTILE.items()
    }
    with health_watched(strict) as seconds, only_new_objects():
        for name, (path, _) in HOSTILE.items():
            body = bodies[name]
            answer = strict.post(path, body, timeout=60)
            statuses[name] = answer.status
            assert answer.status in (200, 400, 413), (name, answer.status, answer.body[:200])
            assert answer.status == 200 or answer.error["type"] == "invalid_request_error"
            assert answer.seconds < 2 * SLACK, (name, answer.seconds)
    assert max(seconds) < 0.1 * SLACK, sorted(seconds)[-5:]
    assert strict.rss_mib() - before < 64
    assert statuses["control tokens"] == 200, "a sound request was refused"
    assert sum(status == 400 for status in statuses.values()) > 30, statuses
    assert strict.chat().text == "The capital of France is Paris."


def exchanged(server: Client, data: bytes) -> bytes:
    """All that the server answers to these bytes, until it closes the connection or nothing comes for a while."""
    with server.raw() as connection:
        connection.sendall(data)
        connection.settimeout(5)
        received = b""
        try:
            while piece := connection.recv(65536):
                received += piece
        except (TimeoutError, ConnectionResetError):
            pass
    return received


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\0" * 100,
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
    ],
    ids=range(7),
)
def test_what_is_not_http_is_a_400(strict: Server, data: bytes) -> None:
    answer = exchanged(strict, data)
    assert answer.startswith(b"HTTP/1.1 400 "), answer[:100]
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["type"] == "invalid_request_error"


def test_headers_have_a_limit(strict: Server) -> None:
    """S11: 431 for one long header, for many, and for one that never ends."""
    long = b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 40_000 + b"\r\n\r\n"
    many = b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + b"".join(b"X%d: 1\r\n" % i for i in range(5000)) + b"\r\n"
    endless = b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 40_000
    url = b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for data in (long, many, endless, url):
        assert exchanged(strict, data).startswith(b"HTTP/1.1 431 ")


def test_a_pipelined_request_hides_no_client_that_leaves(strict: Server) -> None:
    body = json.dumps({"messages": PARIS, "max_tokens": 400, "ignore_eos": True}).encode()
    head = b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" % CHAT.encode()
    both = head + b"Content-Length: %d\r\n\r\n" % len(body) + body + b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    cancelled = "openherd_cancelled_requests_total"
    before = strict.metrics()[cancelled]
    with strict.raw() as connection:
        connection.sendall(both)
        wait_until(lambda: strict.metrics()["openherd_requests"] == 1)
    assert wait_until(lambda: strict.metrics()[cancelled] == before + 1) < 2, "400 tokens take longer"
    assert strict.metrics()["openherd_requests"] == 0
    answer = exchanged(strict, both.replace(b": 400", b":   1"))
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close" in answer.lower()
    assert answer.count(b"HTTP/1.1") == 1, "the connection closes behind the answer"


def test_the_rest_of_a_refused_body_is_not_waited_for_without_end(strict: Server) -> None:
    """S11: one byte of it, and silence."""
    head = b"POST %s HTTP/1.1\r\nHost: elsewhere\r\nContent-Type: application/json\r\n" % CHAT.encode()
    with strict.raw() as connection:
        connection.sendall(head + b"Content-Length: 1000\r\n\r\n")
        assert connection.recv(12) == b"HTTP/1.1 403"
        time.sleep(0.5)
        connection.sendall(b"x")
        started = time.perf_counter()
        while connection.recv(65536):
            pass
        assert time.perf_counter() - started < HEADER_SECONDS + 5


def test_twenty_gigabytes_are_refused_before_they_come(strict: Server) -> None:
    """S11."""
    head = b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" % CHAT.encode()
    started = time.perf_counter()
    answer = exchanged(strict, head + b"Content-Length: 20000000000\r\n\r\n{")
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert time.perf_counter() - started < 1 * SLACK
    chunk = b"%x\r\n" % 65536 + b"a" * 65536 + b"\r\n"
    with strict.raw() as connection:  # announces nothing, and is cut where the limit is
        connection.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
        sent = 0
        try:
            for _ in itertools.repeat(None, 1000):
                connection.sendall(chunk)
                sent += 65536
        except OSError:
            pass
        assert sent < 32 * MIB, "the server took in a body without end"


def test_half_open_clients_keep_nobody_out(strict: Server) -> None:
    """S11: 200 clients that send half a request and wait take no place, no answer's time, and leave on their own."""
    half_headers = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-"
    half_body = half_headers + b"Type: application/json\r\nContent-Length: 99\r\n\r\n{"
    clients: list[socket.socket] = []
    try:
        for number in range(200):
            connection = strict.raw()
            connection.sendall(half_body if number % 2 else half_headers)
            clients.append(connection)
        with health_watched(strict) as seconds:
            for _ in range(5):
                assert strict.chat().text == "The capital of France is Paris."
                time.sleep(0.05)
        assert max(seconds) < 0.1 * SLACK
        assert strict.metrics()["openherd_requests"] == 0, "a half-open client holds a place"
        clients[0].settimeout(30)
        assert clients[0].recv(65536).startswith(b"HTTP/1.1 408 "), "half a request was never given up"
    finally:
        for connection in clients:
            connection.close()
