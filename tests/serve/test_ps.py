"""herd ps: running servers as they are, dead ones not, and no secrets in the files."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from openherd.cli.ps import _HEADER
from openherd.cli.ps import ps as show_servers
from openherd.serve.keys import add_key
from openherd.store.servers import ServerFile, process_start, running_servers
from tests.serve.client import JSON
from tests.serve.conftest import SLACK, serving
from tests.serve.test_lifecycle import herd_serve
from tests.serve.test_overload import wait_until
from tests.unit.llm.tiny_file import write_model


def ps(home: Path, *flags: str) -> str:
    herd = [sys.executable, "-m", "openherd", "ps", *flags]
    environment = {**os.environ, "OPENHERD_HOME": str(home)}
    return subprocess.run(herd, env=environment, capture_output=True, text=True, check=True, timeout=60).stdout


def listed(home: Path) -> list[dict[str, Any]]:
    return json.loads(ps(home, "--json"))["servers"]


def test_servers_are_shown_with_their_models_and_load(tmp_path: Path) -> None:
    home, keys = tmp_path / "home", tmp_path / "keys"
    key = add_key(str(keys), "alice")
    environment = {**os.environ, "OPENHERD_HOME": str(home)}
    assert listed(home) == []
    assert "no server" in ps(home)
    with serving(str(write_model(tmp_path / "tiny.gguf")), "--keys", str(keys), env=environment) as server:
        wait_until(lambda: any(entry["state"] == "ready" for entry in listed(home)))
        (entry,) = listed(home)
        assert (entry["url"], entry["pid"], entry["keys"]) == (server.url, server.process.pid, True)
        (model,) = entry["models"]
        assert (model["name"], model["state"], model["worker_pid"]) == ("tiny", "loaded", server.worker_pid)
        assert model["memory"] > 2**20
        assert entry["memory"] > 2**20
        shown = ps(home)
        assert shown.splitlines()[0].split() == list(_HEADER)
        assert f"{server.url}  tiny   loaded" in shown

        # A request that stands still: its worker is stopped.
        os.kill(server.worker_pid, signal.SIGSTOP)
        body = json.dumps({"prompt": "a zebra-word", "max_tokens": 400, "ignore_eos": True}).encode()
        with server.raw() as waiting:
            head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n"
            waiting.sendall(
                f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
            )
            wait_until(lambda: listed(home)[0]["requests"] == 1)
            (file,) = (home / "servers").glob("*.json")
            text = file.read_text()
            assert "zebra" not in text
            assert key not in text
            os.kill(server.worker_pid, signal.SIGCONT)
            assert waiting.recv(100).startswith(b"HTTP/1.1 200")
        wait_until(lambda: listed(home)[0]["requests"] == 0, 10 * SLACK)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700

        assert server.stop() == 0
        assert listed(home) == []
        assert list((home / "servers").iterdir()) == []


def test_a_killed_server_is_not_shown_and_its_file_goes(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with serving(str(write_model(tmp_path / "tiny.gguf")), env={**os.environ, "OPENHERD_HOME": str(home)}) as server:
        wait_until(lambda: len(listed(home)) == 1)
        server.process.kill()
        server.process.wait(30)
        assert len(list((home / "servers").glob("*.json"))) == 1, "it had time to clean up"
        assert listed(home) == []
        assert list((home / "servers").glob("*.json")) == []


def test_stale_and_foreign_files_are_no_servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENHERD_HOME", str(tmp_path))
    own = ServerFile()
    own.write({"url": "http://127.0.0.1:1", "state": "ready", "models": []})
    folder = tmp_path / "servers"
    pid = os.getpid()
    assert [entry["pid"] for entry in running_servers()] == [pid]
    entry = json.loads((folder / f"{pid}.json").read_text())
    (folder / f"{pid}.json").write_text(json.dumps({**entry, "process_start": "12"}))  # the number was taken over
    for name, text in (
        ("999999999.json", json.dumps({**entry, "pid": 999999999})),
        ("1.json", json.dumps({**entry, "pid": 2})),
        ("x.json", "{}"),
        ("²³.json", "{}"),
        ("999999997.new", "{"),
        (f"{'9' * 100}.json", "[" * 100_000),
        ("999999998.json", "\udcff"),
    ):
        (folder / name).write_text(text, errors="surrogateescape")
    assert running_servers() == []
    assert {path.name for path in folder.iterdir()} <= {"1.json"}, "number 1 lives: whose file that is nobody knows"
    own.write({})
    own.remove()
    assert running_servers() == []
    assert process_start(999999999) is None


def test_what_no_server_wrote_is_not_shown_and_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENHERD_HOME", str(tmp_path))
    own, pid = ServerFile(), os.getpid()
    model = {"name": "a", "state": "loaded", "running": 0, "waiting": 0, "tokens_per_s": 0.0}
    whole = {"url": "http://127.0.0.1:1", "state": "ready", "models": [model]}
    own.write(whole)
    assert len(running_servers()) == 1
    for wrong in (
        {"url": 1},
        {"state": None},
        {"models": None},
        {"models": "abc"},
        {"models": [1]},
        {"models": [{}]},
        {"models": [{**model, "name": [[]]}]},
    ):
        own.write({**whole, **wrong})
        show_servers(json=False)
        show_servers(json=True)
    assert "127.0.0.1" not in capsys.readouterr().out
    own.remove()
    os.mkfifo(tmp_path / "servers" / f"{pid}.json")
    assert running_servers() == []


def test_a_server_that_may_not_write_there_serves_all_the_same(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with serving(
        str(write_model(tmp_path / "tiny.gguf")), env={**os.environ, "OPENHERD_HOME": str(blocked / "home")}
    ) as server:
        assert server.get("/ready", headers=JSON).status == 200
        assert server.news()["event"] == "not_listed"


def test_serve_refuses_nothing_more_than_before() -> None:
    assert herd_serve("--load-wait", "-1").returncode == 2
    assert herd_serve("--memory", "5").returncode == 2
