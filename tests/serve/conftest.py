"""Servers for tests: real processes of `herd serve`, on ports the system chooses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from openherd.serve.keys import add_key
from tests.serve.browser import Visit, chromium
from tests.serve.client import Client

# `make test-serve` sets this: as many requests as the bars say, and their time limits, which want an idle machine.
FULL = bool(os.environ.get("OPENHERD_FULL_TESTS"))
SLACK = 1 if FULL else 8


class Server(Client):
    """A running `herd serve`."""

    def __init__(self, process: subprocess.Popen[str], news: dict[str, Any]) -> None:
        host, _, port = news["url"].removeprefix("http://").rpartition(":")
        super().__init__(host, int(port))
        self.process = process
        self.url: str = news["url"]
        self.worker_pid: int = news.get("models", [news])[0][
            "worker_pid"
        ]  # of several the first's; None: it is not loaded

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def news(self) -> dict[str, Any]:
        """The next line of what the server says about itself."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the server ended"
        return json.loads(line)

    def rss_mib(self) -> float:
        """Memory of front and worker together."""
        pages = sum(
            int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in (self.process.pid, self.worker_pid)
        )
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@contextmanager
def serving(*flags: str, wrapper: Sequence[str] = (), **popen: Any) -> Iterator[Server]:
    """A server of the default model with these flags; it is gone afterwards, whatever happened.

    `wrapper`: a command that runs it; the rest is for `Popen`.
    """
    command = [*wrapper, sys.executable, "-m", "openherd", "serve", "--port", "0", "--json", "--offline", *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **popen)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, f"the server did not start; exit status {process.wait(30)}"
        news = json.loads(line)
        assert news.get("event") == "ready", news
        yield Server(process, news)
    finally:
        process.kill()
        process.wait(30)
        if process.stdout is not None:
            process.stdout.close()


@pytest.fixture(scope="session")
def server(default_model: Path) -> Iterator[Server]:
    """A server that tests share; they leave it as they found it."""
    with serving("--context", "2048") as running:
        yield running
        assert running.get("/ready").status == 200, "a test broke the shared server"
        assert running.stop() == 0


@pytest.fixture(scope="session")
def server_with_key(default_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str]]:
    """A server that tests share, and the one key that it takes."""
    file = str(tmp_path_factory.mktemp("keys") / "keys")
    key = add_key(file, "alice")
    with serving("--context", "512", "--keys", file) as running:
        yield running, key


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Of a module and not of all tests: while it runs, its thread can run no other event loop."""
    with chromium() as running:
        yield running


@pytest.fixture
def visit(browser: Any, server: Server) -> Iterator[Visit]:
    here = Visit(browser, server.url, viewport={"width": 1280, "height": 800}, color_scheme="light")
    yield here
    here.leave()
