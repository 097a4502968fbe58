"""Models that could not be loaded: what their requests are told, and how long it is not tried again."""

from __future__ import annotations

import math
import time

from openherd.errors import CapacityError, HerdError
from openherd.serve.front.errors import ApiError

# A load is tried again by the first request after 1, 2, 4 ... seconds: each try takes a process and all cores.
FIRST_DELAY_S = 1.0
MAX_DELAY_S = 60.0


class LoadFailures:
    """The last attempts that failed, by the model's name."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[HerdError, float, float]] = {}  # why, the delay, and the moment when it is over

    def __contains__(self, name: str) -> bool:
        return name in self._last

    def add(self, name: str, error: HerdError) -> None:
        _, before, _ = self._last.get(name, (None, 0.0, 0.0))
        delay = min(max(2 * before, FIRST_DELAY_S), MAX_DELAY_S)
        self._last[name] = (error, delay, time.monotonic() + delay)

    def clear(self, name: str) -> None:
        self._last.pop(name, None)

    def is_too_soon(self, name: str) -> bool:
        return name in self._last and time.monotonic() < self._last[name][2]

    def refusal(self, name: str) -> ApiError:
        """What a request for that model is answered: 503, with Retry-After where time may help."""
        error, _, over = self._last[name]
        if isinstance(error, CapacityError):
            return ApiError(503, Exception.__str__(error), code="insufficient_memory")
        wait = max(1, math.ceil(over - time.monotonic()))
        return ApiError(
            503,
            f"the model {name} could not be loaded; the server's log says why",
            code="model_load_failed",
            headers={"Retry-After": str(wait)},
        )
