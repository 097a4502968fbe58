"""How much of a span of time the compiled core had, so that the rest is Python's."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from time import perf_counter
from types import FunctionType, TracebackType
from typing import Any, Self

from openherd.kernels.native import NativeModel


class CoreTime:
    """While open, adds up the seconds inside every call that `NativeModel` makes into the core, for all models.

    The calls release the GIL but return before anything else of the engine runs, so that what is left of a step is
    Python: scheduling, arrays, bookkeeping, text. Measuring costs 0.2 us a call.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._calls: dict[str, Any] = {}

    def __enter__(self) -> Self:
        self._calls = {
            name: call
            for name, call in vars(NativeModel).items()
            if isinstance(call, FunctionType) and not name.startswith("_")
        }
        for name, call in self._calls.items():
            setattr(NativeModel, name, self._timed(call))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name, call in self._calls.items():
            setattr(NativeModel, name, call)

    def _timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(call)
        def timed(*args: Any, **kwargs: Any) -> Any:
            started = perf_counter()
            try:
                return call(*args, **kwargs)
            finally:
                self.seconds += perf_counter() - started

        return timed
