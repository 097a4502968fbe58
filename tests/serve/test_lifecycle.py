"""S4 and S12: shutting down without cutting anybody off, and the death of the engine. And what start-up refuses."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.serve.client import PARIS, check_chat_grammar, named_events, parse
from tests.serve.conftest import SLACK, Server, serving
from tests.serve.test_overload import wait_until

CHAT = "/v1/chat/completions"
pytestmark = pytest.mark.usefixtures("default_model")


def running_streams(server: Server, pool: ThreadPoolExecutor, max_tokens: int) -> list[Any]:
    """Four streams in the middle of their answers; each future gives all of its events."""

    def read(seed: int) -> list[Any]:
        body = {"messages": PARIS, "ignore_eos": True, "max_tokens": max_tokens, "temperature": 1, "seed": seed}
        with server.streaming(CHAT, body) as response:
            return parse(response.read())

    streams = [pool.submit(read, seed) for seed in range(4)]
    wait_until(lambda: server.engine("running") == 4)
    return streams


def seconds_until(condition: Callable[[], bool]) -> float:
    return wait_until(condition, 30)


def test_sigterm_lets_streams_complete() -> None:
    """S4: ready says 503 at once, new requests get 503, 4 of 4 streams complete, and the exit status is 0."""
    with serving("--context", "2048") as server, ThreadPoolExecutor(4) as pool:
        streams = running_streams(server, pool, 250)
        server.process.send_signal(signal.SIGTERM)
        assert seconds_until(lambda: server.get("/ready").status == 503) < 0.1 * SLACK
        assert not any(stream.done() for stream in streams), "the streams had ended before the signal"
        assert server.get("/health").status == 200
        refused = server.chat()
        assert (refused.status, refused.error["code"]) == (503, "shutting_down")
        for stream in streams:
            choices, _ = check_chat_grammar(stream.result())
            assert choices[0].finish_reason == "length"
        assert server.process.wait(10 * SLACK) == 0
        assert [server.news()["event"] for _ in range(2)] == ["draining", "stopped"]


def test_half_a_body_at_sigterm_is_answered() -> None:
    """S4: whoever has sent a part of a body is told that the server shuts down, and does not hold it up."""
    with serving("--context", "2048") as server:
        head = (
            f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{{"
        )
        with server.raw() as client:
            client.sendall(head.encode())
            time.sleep(0.5)  # the head has been read, and the rest is waited for
            server.process.send_signal(signal.SIGTERM)
            answer = b"".join(iter(lambda: client.recv(65536), b""))  # the head and the body may come apart
        assert answer.startswith(b"HTTP/1.1 503")
        assert b"shutting_down" in answer
        assert server.process.wait(5 * SLACK) == 0


def test_streams_beyond_the_drain_limit_get_an_error_event() -> None:
    """S4."""
    with serving("--context", "8192", "--drain-limit", "0.3") as server, ThreadPoolExecutor(4) as pool:
        streams = running_streams(server, pool, 8000)
        server.process.send_signal(signal.SIGTERM)
        for stream in streams:
            events = stream.result()
            assert "shuts down" in events[-1]["error"]["message"]
            assert "[DONE]" not in events
        assert server.process.wait(10 * SLACK) == 0


def test_a_second_signal_ends_it_at_once() -> None:
    """S4: within a second, and the worker is gone too."""
    with serving("--context", "8192") as server, ThreadPoolExecutor(4) as pool:
        streams = running_streams(server, pool, 8000)
        server.process.send_signal(signal.SIGTERM)
        seconds_until(lambda: server.get("/ready").status == 503)
        started = time.perf_counter()
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(10 * SLACK) != 0
        assert time.perf_counter() - started < 1 * SLACK
        wait_until(lambda: not is_alive(server.worker_pid))
        assert all(stream.exception() is not None for stream in streams), "the streams had ended by themselves"


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_a_dead_worker_is_noticed_and_replaced() -> None:
    """S12: ready says 503 within a second, streams get an error event, answers a 503; then it works again."""
    with serving("--context", "8192") as server, ThreadPoolExecutor(7) as pool:
        streams = running_streams(server, pool, 8000)
        whole = pool.submit(server.chat, max_tokens=8000, ignore_eos=True)
        story = "Write a story as long as a book. Never stop."
        asked = {"model": "smollm2", "temperature": 1, "stream": True}
        response = pool.submit(named_events, server, "/v1/responses", {**asked, "input": story})
        told = [{"role": "user", "content": story}]
        message = pool.submit(named_events, server, "/v1/messages", {**asked, "messages": told, "max_tokens": 8000})
        wait_until(lambda: server.engine("running") == 7)
        os.kill(server.worker_pid, signal.SIGKILL)
        assert seconds_until(lambda: server.get("/ready").status == 503) < 1 * SLACK
        for stream in streams:
            events = stream.result()
            assert "stopped unexpectedly" in events[-1]["error"]["message"]
            assert "[DONE]" not in events
        last = response.result()[-1]
        assert (last["type"], last["response"]["status"]) == ("response.failed", "failed")
        assert last["response"]["error"]["code"] == "server_error"
        assert "stopped unexpectedly" in last["response"]["error"]["message"]
        last = message.result()[-1]
        assert (last["type"], last["error"]["type"]) == ("error", "overloaded_error")
        assert (whole.result().status, whole.result().headers["retry-after"]) == (503, "1")
        news = [server.news() for _ in range(2)]
        assert [entry["event"] for entry in news] == ["worker_died", "worker_restarted"]
        assert news[0]["status"] == -signal.SIGKILL
        seconds_until(lambda: server.get("/ready").status == 200)
        assert server.chat().text == "The capital of France is Paris."
        assert server.metrics()['openherd_worker_restarts_total{model="smollm2"}'] == 1
        assert server.stop() == 0


def test_it_ends_in_order_when_nobody_reads_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # with a buffer, unread words are kept for the last flush
    command = [sys.executable, "-m", "openherd", "serve", "--port", "0", "--json", "--offline", "--context", "512"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["event"] == "ready"
        process.stdout.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_the_worker_ends_with_the_front() -> None:
    with serving("--context", "2048") as server:
        server.process.kill()
        wait_until(lambda: not is_alive(server.worker_pid))


def herd_serve(*flags: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "openherd", "serve", "--offline", *flags],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--host", "0.0.0.0"], "--host 0.0.0.0"),
        (["--keys", "/no/such/file"], "/no/such/file"),
        (["--add-key", "alice"], "--keys"),
        (["--host", "::"], "--host"),
        (["--host", "example.com"], "--host"),
        (["--port", "70000"], "--port"),
        (["--queue", "-1"], "--queue"),
        (["--drain-limit", "nan"], "--drain-limit"),
        (["no-such-model"], "no-such-model"),
        (["--template", "no-such-template"], "no-such-template"),
        (["--context", "1"], "context"),
    ],
    ids=str,
)
def test_what_cannot_be_served_is_refused_in_a_line(flags: list[str], said: str) -> None:
    done = herd_serve(*flags)
    assert done.returncode in (1, 2)
    assert done.stderr.startswith("herd: error: ")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) <= 2
    assert not done.stdout


def test_a_taken_port_is_refused_in_a_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = herd_serve("--port", str(taken.getsockname()[1]))
    assert done.returncode == 2
    assert "in use" in done.stderr


def test_the_extra_that_is_missing_is_named() -> None:
    """An interpreter in which the extra's packages cannot be found."""
    hide = (
        "import importlib.util as u, sys; found = u.find_spec;"
        "u.find_spec = lambda name, *a: None if name == 'fastapi' else found(name, *a);"
        "from openherd.cli import main; sys.exit(main(['serve', '--json']))"
    )
    done = subprocess.run([sys.executable, "-c", hide], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    error = json.loads(done.stdout)["error"]
    assert "fastapi" in error["message"]
    assert ".[serve]" in error["hint"]
