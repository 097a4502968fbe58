"""Bounds on what a chat template may spend: CPU time, length of its text, sum of all text it makes on the way.

A template comes from a file and is hostile input. The sandbox calls `tick` at every step it can see and
`reserve` before every string is made, so a loop or a string bomb stops within the budget. No step between two ticks may
take more than about 30 ms, whatever its operands: the sandbox bounds or refuses the operations that could.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import TypeVar

from openherd.errors import TemplateError

T = TypeVar("T")

SECONDS = 0.2  # of this thread's CPU, for compiling and one render together; with the longest step it stays under 0.25
_SECONDS_PER_CHAR = 2e-7  # real templates need under a tenth of this
_CHARS = 2**18  # 1 MiB of UTF-8 at worst, beyond what the messages themselves hold
_COPIES = 64  # how often a template may copy all of its text while it builds it


class OutOfTimeError(TemplateError):
    """The CPU time is spent: by the template, or by a pause of the process (see `within`)."""


class _Budget:
    __slots__ = ("deadline", "emitted", "max_chars", "reservable")

    def __init__(self, seconds: float, input_chars: int) -> None:
        self.deadline = time.thread_time() + seconds + _SECONDS_PER_CHAR * input_chars
        self.max_chars = _CHARS + 2 * input_chars
        self.reservable = _COPIES * self.max_chars
        self.emitted = 0


_current: ContextVar[_Budget | None] = ContextVar("chat template budget", default=None)


def within(seconds: float, work: Callable[[], T], *, input_chars: int = 0) -> T:
    """What `work` gives, bounded. `input_chars`: length of the conversation given to the template.

    It gets two tries of half the `seconds` each. Real templates need milliseconds, but a thread's clock also runs while
    the collector goes through a large process, and while a virtual machine's host works for others: a pause spoils one
    try, and a template that is too slow fails both. Raises `TemplateError` when a bound is met.
    """
    try:
        return _bounded(seconds / 2, work, input_chars)
    except OutOfTimeError:
        return _bounded(seconds / 2, work, input_chars)


def _bounded(seconds: float, work: Callable[[], T], input_chars: int) -> T:
    token = _current.set(_Budget(seconds, input_chars))
    try:
        return work()
    finally:
        _current.reset(token)


def tick() -> None:
    """One step. Raises `OutOfTimeError` when the CPU time is spent."""
    budget = _current.get()
    if budget is not None and time.thread_time() > budget.deadline:
        raise OutOfTimeError("the chat template takes too long: it was stopped")


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
