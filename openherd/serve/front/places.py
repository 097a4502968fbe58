"""Places: how many requests may run or wait, in the server and for each of its models.

A request takes one of the server's places before its body is parsed, and one of its model's as soon as the model is
known; it keeps both to the end of its answer. The server has as many as its models together, so requests that wait for
one model, which is busy or being loaded, leave the places of all others free.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Mapping
from types import TracebackType

from openherd.serve.front.errors import ApiError

# Retry-After is estimated from the last requests that ended.
_NUM_RECENT = 32
_MAX_RETRY_AFTER_S = 60


class Line:
    """Those who have one kind of place."""

    def __init__(self, num_places: int, what: str) -> None:
        """`what`: the words for what they do there, in an error."""
        self.num_places = num_places
        self.num_taken = 0
        self._what = what
        self._ended: deque[float] = deque(maxlen=_NUM_RECENT)

    def check(self) -> None:
        """Raises `ApiError` 429 where no place is left."""
        if self.num_taken >= self.num_places:
            raise ApiError(
                429,
                f"{self.num_places} requests {self._what} already; try again soon",
                code="queue_full",
                headers={"Retry-After": str(self.seconds_to_a_place())},
            )

    def take(self) -> None:
        self.num_taken += 1

    def leave(self) -> None:
        self.num_taken -= 1
        self._ended.append(time.monotonic())

    def seconds_to_a_place(self) -> int:
        """How long requests have taken lately to make room for one more, at least a second."""
        if len(self._ended) < 2:
            return 1
        interval = (time.monotonic() - self._ended[0]) / len(self._ended)
        return max(1, min(math.ceil(interval), _MAX_RETRY_AFTER_S))


class Places:
    """All of one server's. `max_seqs`: how many requests each model runs at once; `queue`: how many more may wait."""

    def __init__(self, max_seqs: Mapping[str, int], queue: int) -> None:
        self._of_models = {
            model: Line(at_once + queue, f"are running or waiting for {model}") for model, at_once in max_seqs.items()
        }
        self.all = Line(sum(line.num_places for line in self._of_models.values()), "are running or waiting")

    def of(self, model: str) -> Line:
        return self._of_models[model]


class Place:
    """One request's, around its answer."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._taken: list[Line] = []

    def __enter__(self) -> Place:
        self._take(self._places.all)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for line in self._taken:
            line.leave()

    def with_model(self, model: str) -> None:
        """The request is for that model. Raises `ApiError` 429."""
        line = self._places.of(model)
        line.check()
        self._take(line)

    def _take(self, line: Line) -> None:
        line.take()
        self._taken.append(line)
