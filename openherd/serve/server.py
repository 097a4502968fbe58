"""`run`: the whole server in one process, from the socket to the exit status.

SIGTERM or Ctrl-C begins the drain: `/ready` says 503, new requests get 503, running answers end. At the drain limit
what still runs gets an error. A second signal ends everything at once.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import uvicorn

from openherd.errors import OptionError
from openherd.serve.front.app import build_app
from openherd.serve.front.connections import Connection
from openherd.serve.front.pool import ModelPool
from openherd.serve.front.records import RequestLog
from openherd.serve.front.workers import ModelSpec, ModelWorker
from openherd.serve.keys import KeyRing
from openherd.serve.lifecycle import Lifecycle
from openherd.serve.options import ServeOptions
from openherd.serve.presence import Presence

Tell = Callable[[dict[str, Any]], None]

KEEP_ALIVE_S = 30
BACKLOG = 2048
# What open connections get after the last answer, to take it in.
LAST_BYTES_S = 2.0
# Of the memory that is free at the start, for all models together; the rest is the page cache's and other programs'.
MEMORY_SHARE = 0.7
_SECOND_SIGNAL = 130


def run(specs: Sequence[ModelSpec], options: ServeOptions, keys: KeyRing, *, tell: Tell) -> int:
    """Serve until a signal; returns the exit status. `tell` is given what happens, a dictionary with `event`.

    Raises `HerdError`s when the address cannot be had or a model cannot be loaded.
    """
    listener = _listen(options)
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(_serve(listener, specs, options, keys, tell))
    finally:
        listener.close()


def url_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def _serve(
    listener: socket.socket, specs: Sequence[ModelSpec], options: ServeOptions, keys: KeyRing, tell: Tell
) -> int:
    # Requests that are no HTTP are answered, not written down; mistakes of ours are.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    lifecycle = Lifecycle()
    pool = ModelPool(specs, memory=_budget(specs, options), patience_s=options.load_wait, tell=tell)
    log = RequestLog(options.log, with_prompts=options.log_prompts)
    app = build_app(pool, lifecycle, options, keys, log)
    server = _Server(
        uvicorn.Config(
            app,
            http=partial(Connection, refused=app.refused),  # type: ignore[arg-type]
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=LAST_BYTES_S,  # type: ignore[arg-type]
            backlog=BACKLOG,
        )
    )
    stop = _Signals(pool)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    loading = asyncio.create_task(pool.start())
    asked = asyncio.create_task(stop.first.wait())
    presence = Presence(url_of(listener), pool, lifecycle, has_keys=bool(keys), tell=tell)
    listed = asyncio.create_task(presence.keep())
    try:
        await asyncio.wait((loading, asked, serving), return_when=asyncio.FIRST_COMPLETED)
        if loading.done():
            await loading  # raises what the worker said
            tell({"event": "ready", "url": url_of(listener), **_shown(pool)})
            presence.announced.set()
        await asyncio.wait((asked, serving), return_when=asyncio.FIRST_COMPLETED)
        lifecycle.begin_drain()
        tell({"event": "draining", "requests": lifecycle.num_requests, "limit_s": options.drain_limit})
        if not await lifecycle.wait_idle(options.drain_limit):
            pool.fail_all("the server shuts down, and the answer did not end in time")
            await lifecycle.wait_idle(LAST_BYTES_S)
    finally:
        for task in (loading, asked, listed):
            task.cancel()
        await asyncio.gather(loading, asked, listed, return_exceptions=True)
        server.should_exit = True
        await serving
        await pool.stop()
        log.close()
    tell({"event": "stopped"})
    return 0


class _Server(uvicorn.Server):
    """uvicorn's, without its signal handling: it would close the door at once, where we answer 503."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Signals:
    """The first SIGTERM or SIGINT is an event; the second ends the process."""

    def __init__(self, pool: ModelPool) -> None:
        self.first = asyncio.Event()
        self._pool = pool
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._arrived)

    def _arrived(self) -> None:
        if not self.first.is_set():
            self.first.set()
            return
        self._pool.kill()
        os._exit(_SECOND_SIGNAL)


def _listen(options: ServeOptions) -> socket.socket:
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    host = "127.0.0.1" if options.host.lower() == "localhost" else options.host
    try:
        listener.bind((host, options.port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        taken = f"--port {options.port} cannot be used on {options.host}: {error.strerror or error}"
        raise OptionError(taken, hint=f"try: --port {options.port % 65535 + 1}, or --port 0 for any") from None
    return listener


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where it is installed: half the front's share of the processor."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _budget(specs: Sequence[ModelSpec], options: ServeOptions) -> int | None:
    """Bytes for all models together; None for a single one without --memory, which takes what it finds."""
    if options.memory is not None or len(specs) == 1:
        return options.memory
    from openherd.engine.memory import free_memory

    return int(free_memory() * MEMORY_SHARE)


def _shown(pool: ModelPool) -> dict[str, Any]:
    """One model's facts or, of several, a list."""
    models = [_shown_model(worker) for worker in pool.workers]
    return models[0] if len(models) == 1 and pool.workers[0].is_ready else {"models": models}


def _shown_model(worker: ModelWorker) -> dict[str, Any]:
    named = ("context", "trained_context", "numerics_id", "adapters", "load_s")
    facts = {name: worker.facts[name] for name in named if name in worker.facts}
    return {"model": worker.spec.name, "state": worker.state, "worker_pid": worker.pid, **facts}
