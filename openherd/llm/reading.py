"""Sequences that the engine only reads: their prompts are computed, and nothing is drawn."""

from __future__ import annotations

from collections.abc import Sequence

from openherd.engine.sequence import Request, StepOutput
from openherd.llm.driver import Driver
from openherd.messages import FinishReason


class Reading:
    """Receives the end of one: `LENGTH` when all of its prompt was read."""

    num_tokens = 0  # of an answer: there is none

    def __init__(self) -> None:
        self.finish_reason: FinishReason | None = None
        self.error: str | None = None

    def receive(self, output: StepOutput) -> FinishReason | None:
        self.finish_reason, self.error = output.finish_reason, output.error
        return None

    def end(self, reason: FinishReason) -> None:
        self.finish_reason = reason

    def fail(self, error: str) -> None:
        self.finish_reason, self.error = FinishReason.ERROR, error


def read_all(driver: Driver, sequences: Sequence[tuple[Request, Reading]]) -> None:
    """Until each has ended; whatever stops it, nothing of them goes on in the engine."""
    readings = [reading for _, reading in sequences]
    try:
        for one in sequences:
            driver.submit([one])
        driver.run_to_end(readings)
    finally:
        driver.cancel(readings)
