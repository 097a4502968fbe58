"""The line that a person watches while a model is trained; it renews itself on a terminal, and comes seldom elsewhere.

step 120/2,000  loss 2.314  14.2k tokens/s  61 % of peak  0.4 GB  3 min left
"""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import TextIO

_RENEW_S, _REPEAT_S = 0.1, 10.0
"""Between lines on a terminal, and elsewhere."""
_WINDOW = 20
"""Steps over which speed is averaged: enough that one slow step does not move the time left."""


class ProgressLine:
    """Told about each step; writes to standard error."""

    def __init__(
        self,
        steps: int,
        *,
        flops_per_token: float = 0.0,
        peak_flops: float = 0.0,
        memory: Callable[[], int] | None = None,
        stream: TextIO | None = None,
    ) -> None:
        """`memory`: tells the bytes in use. Without the two rates no utilisation is shown."""
        self._steps, self._flops_per_token, self._peak_flops, self._memory = steps, flops_per_token, peak_flops, memory
        self._stream = stream if stream is not None else sys.stderr
        self._live = self._stream.isatty()
        self._shown_at = -math.inf
        self._done: deque[tuple[int, float, float]] = deque(maxlen=_WINDOW)  # step, seconds, tokens

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Step `step` (from 1) is done: `metrics` has loss, seconds and tokens."""
        self._done.append((step, metrics.get("seconds", 0.0), metrics.get("tokens", 0.0)))
        now = time.monotonic()
        if step < self._steps and now - self._shown_at < (_RENEW_S if self._live else _REPEAT_S):
            return
        self._shown_at = now
        line = self._line(step, metrics)
        self._write(f"\r{line}\x1b[K" if self._live else f"herd: {line}\n")

    def say(self, text: str) -> None:
        """A line of its own, above the one that renews itself."""
        self._write(f"\r\x1b[Kherd: {text}\n" if self._live else f"herd: {text}\n")

    def close(self) -> None:
        if self._live and self._done:
            self._write("\n")

    def utilisation(self) -> float:
        """The share of the machine's measured peak that the last steps used; 0 where it is unknown."""
        return self._flops_per_token * self._tokens_per_s() / self._peak_flops if self._peak_flops else 0.0

    def _line(self, step: int, metrics: Mapping[str, float]) -> str:
        seconds = sum(took for _, took, _ in self._done) / len(self._done)
        parts = [
            f"step {step:,}/{self._steps:,}",
            f"loss {metrics.get('loss', math.nan):.3f}",
            f"{_short(self._tokens_per_s())} tokens/s",
        ]
        if self._peak_flops:
            parts.append(f"{self.utilisation():.0%} of peak".replace("%", " %"))
        if self._memory is not None:
            parts.append(f"{self._memory() / 1e9:.1f} GB")
        return "  ".join([*parts, f"{duration(seconds * (self._steps - step))} left"])

    def _tokens_per_s(self) -> float:
        seconds = sum(took for _, took, _ in self._done)
        return sum(tokens for _, _, tokens in self._done) / seconds if seconds > 0 else 0.0

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:  # nobody reads any more; the run goes on
            self._live = False


def duration(seconds: float) -> str:
    """For people: `42 s`, `3 min`, `2 h 10 min`, `5 d 3 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def _short(number: float) -> str:
    """`812`, `14.2k`, `1.3M`."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.1f}{letter}"
    return f"{number:.0f}"
