"""An answer while it is being made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self
from weakref import finalize

from openherd.llm.answer import Answer, Delta
from openherd.llm.driver import Driver
from openherd.messages import Completion


class Stream:
    """Iterates over the deltas of one prompt's answers, of all choices as they come.

    It can be given up at any moment: leaving a `for` loop or a `with` block early, `close()`, or dropping the last
    reference ends the answers and frees their blocks. Several streams of one model run at once, from one thread or
    many; a stream itself is for one thread.
    """

    def __init__(self, driver: Driver, answers: Sequence[Answer]) -> None:
        self._driver = driver
        self._answers = answers
        self._closed = False
        self._abandon = finalize(self, driver.abandon, answers)
        self._abandon.atexit = False

    def __iter__(self) -> Iterator[Delta]:
        try:
            while (delta := self._next()) is not None:
                yield delta
        finally:
            self.close()

    def __next__(self) -> Delta:
        delta = self._next()
        if delta is None:
            raise StopIteration
        return delta

    def close(self) -> None:
        """End the answers that are not finished; no delta follows. Safe to repeat."""
        self._closed = True
        self._abandon.detach()
        self._driver.cancel(self._answers)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def completion(self) -> Completion:
        """The first choice; while it is not finished, what has been made of it, as aborted."""
        return self._answers[0].completion()

    @property
    def completions(self) -> list[Completion]:
        """All choices, as `completion`."""
        return [answer.completion() for answer in self._answers]

    def _next(self) -> Delta | None:
        """The next delta of any choice; None at the end of all."""
        if self._closed:
            return None
        found = self._driver.run_until(self._ready)
        return found[0] if found else None

    def _ready(self) -> tuple[Delta, ...] | None:
        """One delta; nothing at the end of all choices; None while there is more to wait for."""
        for answer in self._answers:
            if delta := answer.take():
                return (delta,)
        return () if all(answer.finish_reason is not None for answer in self._answers) else None
