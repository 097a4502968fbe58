"""Several files at once: a few connections, one line of progress, and an end to all when one fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue

from openherd.store.digest import Pinned
from openherd.store.download import download
from openherd.store.progress import Progress
from openherd.store.web import Web

CONNECTIONS = 4
_GRACE_S = 2.0


@dataclass(frozen=True, slots=True)
class Job:
    """`partial` is completed from `url` and becomes `target` when it is `pinned`."""

    url: str
    partial: Path
    target: Path
    pinned: Pinned


class _StoppedError(Exception):
    """Another file failed, or the person interrupted."""


class _Total:
    """Adds the files' progress up. Each file has its own view of it (`part`)."""

    def __init__(self, progress: Progress, had: int, jobs: Sequence[Job]) -> None:
        self._progress = progress
        self._had = had
        self._total = had + sum(job.pinned.size for job in jobs)
        # From the first, also of a file that is whole and of which nothing will come.
        self._done = {job.partial: min(_size(job.partial), job.pinned.size) for job in jobs}
        self._lock = threading.Lock()
        self.stop = threading.Event()

    def say(self, text: str) -> None:
        with self._lock:
            self._progress.say(text)

    def advance(self, path: Path, done: int) -> None:
        if self.stop.is_set():
            raise _StoppedError
        with self._lock:
            self._done[path] = done
            self._progress.advance(self._had + sum(self._done.values()), self._total)


@dataclass(frozen=True, slots=True)
class _Part:
    """One file's Progress."""

    whole: _Total
    path: Path

    def say(self, text: str) -> None:
        self.whole.say(text)

    def advance(self, done: int, total: int) -> None:
        self.whole.advance(self.path, done)

    def finish(self) -> None:
        """The line ends with the last file."""


def transfer(
    web: Web,
    jobs: Sequence[Job],
    progress: Progress,
    *,
    had: int,
    pause: Callable[[float], None],
    explain: Callable[[Job, BaseException], BaseException],
) -> None:
    """Do all jobs, at most `CONNECTIONS` at a time. `had` are the bytes of files that are whole under their names.

    The first failure ends the others and is raised as `explain` has it; what came stays in the partial files.
    """
    total = _Total(progress, had, jobs)
    queue: SimpleQueue[Job] = SimpleQueue()
    for job in jobs:
        queue.put(job)
    failures: list[BaseException] = []

    def work() -> None:
        while not total.stop.is_set():
            try:
                job = queue.get_nowait()
            except Empty:
                return
            try:
                download(web, job.url, job.partial, job.pinned, _Part(total, job.partial), pause=pause)
                job.partial.replace(job.target)
            except _StoppedError:
                return
            except BaseException as error:  # of the caller's Progress too, whatever it raises
                failures.append(explain(job, error))
                total.stop.set()

    # Daemons: a connection that hangs must not keep an interrupted command from ending.
    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(CONNECTIONS, len(jobs)))]
    for thread in threads:
        thread.start()
    try:
        _wait(threads, total.stop)
    finally:
        total.stop.set()
        end = time.monotonic() + _GRACE_S
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))
        progress.finish()
    if failures:
        raise failures[0]


def _size(partial: Path) -> int:
    return partial.stat().st_size if partial.exists() else 0


def _wait(threads: list[threading.Thread], stop: threading.Event) -> None:
    for thread in threads:
        while thread.is_alive() and not stop.is_set():
            thread.join(0.1)
