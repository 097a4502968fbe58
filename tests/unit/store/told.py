"""A Progress that remembers."""

from __future__ import annotations


class Told:
    def __init__(self) -> None:
        self.said: list[str] = []
        self.steps: list[tuple[int, int]] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def advance(self, done: int, total: int) -> None:
        self.steps.append((done, total))

    def finish(self) -> None:
        pass
