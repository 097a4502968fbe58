"""How often, and after what pause, something that failed for now is tried again."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from openherd.errors import DownloadError
from openherd.store.web import UnreachableError

MAX_FAILURES = 4
"""Failures in a row, without anything gained between them, before the attempt is given up."""
LONGEST_WAIT_S = 300.0
"""Of what a server may ask by Retry-After; a longer wait is for the person to decide."""

T = TypeVar("T")


class Patience:
    """Counts failures in a row. The pauses double from one second; a server that asks for a longer one gets it."""

    def __init__(self, pause: Callable[[float], None] = time.sleep) -> None:
        self._pause = pause
        self._failures = 0

    def gained(self) -> None:
        self._failures = 0

    def failed(self, error: UnreachableError) -> None:
        """Wait, or raise `error` when that was the last failure, or DownloadError for too long a wait."""
        self._failures += 1
        asked = error.retry_after_s() or 0.0
        if self._failures >= MAX_FAILURES:
            raise error
        if asked > LONGEST_WAIT_S:
            raise DownloadError(
                f"the server asks to wait {asked:.0f} s before the next request ({error})",
                hint="run the same command again after that; what has been fetched is kept",
            )
        self._pause(max(2.0 ** (self._failures - 1), asked))


def patiently(action: Callable[[], T], pause: Callable[[float], None] = time.sleep) -> T:
    """The result of `action`, tried again while it raises UnreachableError and patience lasts; then that is raised."""
    patience = Patience(pause)
    while True:
        try:
            return action()
        except UnreachableError as error:
            patience.failed(error)
