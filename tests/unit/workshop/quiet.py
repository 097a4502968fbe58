"""Progress that is only counted."""

from __future__ import annotations


class Quiet:
    def __init__(self) -> None:
        self.advanced = 0

    def say(self, text: str) -> None: ...

    def advance(self, done: int, total: int) -> None:
        assert 0 < done <= total
        self.advanced += 1

    def finish(self) -> None: ...
