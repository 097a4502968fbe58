"""Signals that ask a run to end: SIGINT (Ctrl-C), SIGTERM (a scheduler), SIGHUP (a closed terminal).

While data is prepared there is nothing to save, and the first signal raises `Interrupted`. While the loop runs it is
noted, the step under way is finished, everything is saved, and the run ends. The exit status of either is 128 plus the
signal's number, as a shell reports it, so that a scheduler knows the run is not done. A second signal ends the process
at once; the last checkpoint is whole all the same. Signals that were ignored when the run began (nohup) stay ignored.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
TOGETHER = 1.0
"""Seconds within which signals count as one: torchrun passes on what the terminal has sent to everyone already."""


class Interrupted(KeyboardInterrupt):
    """A signal came when there was nothing to save."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_status = exit_status(number)


class Interrupts:
    """A context manager, which may be entered again inside, in which the signals are ours. In threads other than the
    main one it changes nothing."""

    def __init__(self) -> None:
        self.received: int | None = None
        """The signal that asked the run to end."""
        self._at = 0.0
        self._deferring = False
        self._before: dict[int, Callable[..., Any] | int | None] = {}
        self._entered = 0

    def __enter__(self) -> Self:
        self._entered += 1
        if self._entered == 1 and threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered -= 1
        if not self._entered:
            for number, handler in self._before.items():
                signal.signal(number, handler)
            self._before.clear()

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Within, a signal is only noted in `received`."""
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.received is None:
            self.received, self._at = number, now
            if not self._deferring:
                raise Interrupted(number)
        elif now - self._at > TOGETHER:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


def exit_status(number: int) -> int:
    return 128 + number
