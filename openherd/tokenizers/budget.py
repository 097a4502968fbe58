"""Bounds on what a chat template may spend: CPU time, length of its text, sum of all text it makes on the way.

A template comes from a file and is hostile input. The sandbox calls `tick` at every step it can see and
`reserve` before every string is made, so a loop or a string bomb stops within the budget of the current render.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from openherd.errors import TemplateError

_SECONDS = 0.12  # of this thread's CPU, for a conversation of no length
# A render of few steps has twice that: real templates need milliseconds, but a virtual machine's clock charges a thread
# for time that its host gave to others, and an honest template must not fail for it.
_FEW_STEPS = 1000
_SECONDS_PER_CHAR = 2e-7  # real templates need under a tenth of this
_CHARS = 2**18  # 1 MiB of UTF-8 at worst, beyond what the messages themselves hold
_COPIES = 64  # how often a template may copy all of its text while it builds it


class _Budget:
    __slots__ = ("deadline", "emitted", "last_deadline", "max_chars", "num_steps", "reservable")

    def __init__(self, input_chars: int) -> None:
        seconds = _SECONDS + _SECONDS_PER_CHAR * input_chars
        self.deadline = time.thread_time() + seconds
        self.last_deadline = self.deadline + seconds
        self.num_steps = 0
        self.max_chars = _CHARS + 2 * input_chars
        self.reservable = _COPIES * self.max_chars
        self.emitted = 0


_current: ContextVar[_Budget | None] = ContextVar("chat template budget", default=None)


@contextmanager
def spending(input_chars: int) -> Iterator[None]:
    """Bound everything done inside; `input_chars` is the length of the conversation given to the template."""
    token = _current.set(_Budget(input_chars))
    try:
        yield
    finally:
        _current.reset(token)


def tick() -> None:
    """One step. Raises `TemplateError` when the CPU time is spent."""
    budget = _current.get()
    if budget is None:
        return
    budget.num_steps += 1
    if time.thread_time() > (budget.deadline if budget.num_steps > _FEW_STEPS else budget.last_deadline):
        raise TemplateError("the chat template takes too long: it was stopped")


def reserve(chars: int) -> None:
    """About to make a string of `chars`. Raises `TemplateError` when it, or all strings so far, are too long."""
    budget = _current.get()
    if budget is None:
        return
    budget.reservable -= chars
    if chars > budget.max_chars or budget.reservable < 0:
        raise _too_much(budget)
    tick()


def emit(chars: int) -> None:
    """About to add `chars` to the result. Raises `TemplateError` when the result is too long."""
    budget = _current.get()
    if budget is None:
        return
    budget.emitted += chars
    if budget.emitted > budget.max_chars:
        raise _too_much(budget)
    tick()


def _too_much(budget: _Budget) -> TemplateError:
    return TemplateError(f"the chat template makes too much text: it was stopped at {budget.max_chars} characters")
