"""What `herd ps` reads: the server tells about itself in a file, about once a second while something changes.

No request is needed for it, so it works with keys as without; and it holds no key, and nothing that a client wrote.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from openherd import __version__
from openherd.errors import HerdError
from openherd.serve.front.pool import ModelPool
from openherd.serve.front.workers import ModelWorker
from openherd.serve.lifecycle import Lifecycle
from openherd.store.servers import ServerFile

EVERY_S = 1.0


class Presence:
    """Keeps the file of one server."""

    def __init__(
        self, url: str, pool: ModelPool, lifecycle: Lifecycle, *, has_keys: bool, tell: Callable[[dict[str, Any]], None]
    ) -> None:
        self._pool = pool
        self._lifecycle = lifecycle
        self._tell = tell
        self._fixed = {
            "url": url,
            "version": __version__,
            "keys": has_keys,
            "started": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        }
        self.announced = asyncio.Event()
        """Set by the server when it has said that it is ready: only then is anything else told."""
        self._rates = {worker.spec.name: _Rate(worker) for worker in pool.workers}

    async def keep(self) -> None:
        """Until cancelled. A server that may not write there serves all the same, and says that it is not listed."""
        try:
            file = ServerFile()
        except HerdError as error:
            await self._complain(Exception.__str__(error))
            return
        written: dict[str, Any] | None = None
        try:
            while True:
                if (facts := self._facts()) != written:
                    file.write(facts)
                    written = facts
                await asyncio.sleep(EVERY_S)
        except OSError as error:
            await self._complain(f"the file for herd ps cannot be written: {error.strerror}")
        finally:
            file.remove()

    async def _complain(self, message: str) -> None:
        await self.announced.wait()
        self._tell({"event": "not_listed", "message": message})

    def _facts(self) -> dict[str, Any]:
        state = "draining" if self._lifecycle.is_draining else "ready" if self._pool.is_ready else "loading"
        models = [self._model(worker) for worker in self._pool.workers]
        return {**self._fixed, "state": state, "requests": self._lifecycle.num_requests, "models": models}

    def _model(self, worker: ModelWorker) -> dict[str, Any]:
        return {
            "name": worker.spec.name,
            "adapters": sorted(worker.spec.adapters),
            "state": worker.state,
            "worker_pid": worker.pid,
            "context": worker.facts.get("context"),
            "running": worker.stats.get("num_running", 0),
            "waiting": worker.stats.get("num_waiting", 0),
            "tokens_per_s": self._rates[worker.spec.name].now(),
        }


class _Rate:
    """Tokens that a worker has drawn in the last second or so."""

    def __init__(self, worker: ModelWorker) -> None:
        self._worker = worker
        self._tokens = 0
        self._at = time.monotonic()

    def now(self) -> float:
        tokens, now = self._worker.stats.get("num_generated_tokens", 0), time.monotonic()
        drawn, seconds = tokens - self._tokens, now - self._at
        self._tokens, self._at = tokens, now
        return round(drawn / seconds, 1) if drawn > 0 and seconds > 0 else 0.0  # a new worker counts from nothing
