"""Drives one engine for many callers: each step serves everybody, and everybody's output is kept until they ask.

An engine is for one thread at a time; the driver's lock decides for which. A server's loop calls `submit`, `step` and
`cancel`; a caller of `LLM` steps the engine itself while it waits (`run_until`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar

from openherd.engine.engine import Engine
from openherd.engine.sequence import Request, StepOutput
from openherd.llm.turns import FifoLock
from openherd.messages import FinishReason

T = TypeVar("T")


class Receiver(Protocol):
    """Takes in the outputs of one sequence."""

    @property
    def finish_reason(self) -> FinishReason | None: ...
    @property
    def num_tokens(self) -> int:
        """Tokens of the answer to keep when `receive` ends it."""

    def receive(self, output: StepOutput) -> FinishReason | None:
        """Take in an output; a reason ends the sequence although the engine would go on."""

    def end(self, reason: FinishReason) -> None:
        """No output will follow."""

    def fail(self, error: str) -> None:
        """`receive` raised this, or what it asked for did; no output will follow."""


class _Turn:
    """A caller's turn with the engine. One object for all: nothing is made anew for each step."""

    def __init__(self, lock: FifoLock, *, before: Callable[[], None], after: Callable[[], None]) -> None:
        self._lock = lock
        self._before = before
        self._after = after

    def __enter__(self) -> None:
        self._lock.acquire()
        try:
            self._before()
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *error: object) -> None:
        self._lock.release()
        self._after()


class Driver:
    """All methods may be called from any thread. An exception of the engine's step reaches the caller who made it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = FifoLock()
        self._turn = _Turn(self._lock, before=self._cancel_abandoned, after=self._reap)
        self._receivers: dict[int, Receiver] = {}  # unfinished, by sequence id
        self._outputs: deque[StepOutput] = deque()  # of a step, not yet handed to their receivers
        self._abandoned: deque[Iterable[Receiver]] = deque()

    def submit(self, choices: Sequence[tuple[Request, Receiver]]) -> None:
        """Queue the choices of one prompt; they share its prefill. Queues all or, if one is refused, none."""
        with self._turn:
            seq_ids = self._engine.add_choices([request for request, _ in choices])
            self._receivers |= zip(seq_ids, (receiver for _, receiver in choices), strict=True)

    def step(self) -> bool:
        """Advance everything by one step. Returns whether there is more to do."""
        with self._turn:
            self._step()
            return bool(self._receivers)

    def num_computed(self, receivers: Iterable[Receiver]) -> int:
        """Tokens of these receivers' unfinished sequences that are in the KV cache."""
        asked = {id(receiver) for receiver in receivers}
        with self._turn:
            return sum(
                self._engine.num_computed(seq_id)
                for seq_id, receiver in self._receivers.items()
                if id(receiver) in asked
            )

    def run_until(self, ready: Callable[[], T | None]) -> T:
        """Step until `ready()` gives something other than None. Others' steps count too."""
        while True:
            with self._turn:
                if (result := ready()) is not None:
                    return result
                assert self._receivers, "nothing runs that could make it ready"
                self._step()

    def run_to_end(self, receivers: Sequence[Receiver]) -> None:
        """Step until all of these have ended."""
        left = list(receivers)

        def all_ended() -> bool | None:
            while left and left[-1].finish_reason is not None:  # the last queued is mostly the last to end
                left.pop()
            return None if left else True

        self.run_until(all_ended)

    def cancel(self, receivers: Iterable[Receiver]) -> None:
        """End these receivers' sequences and free their blocks. Safe to repeat."""
        with self._turn:
            self._cancel(receivers)

    def abandon(self, receivers: Iterable[Receiver]) -> None:
        """`cancel` for finalisers: never waits. If the engine is busy, whoever is using it cancels on the way out."""
        self._abandoned.append(receivers)
        self._reap()

    def close(self) -> None:
        """End everything and close the engine. Safe to repeat."""
        with self._turn:
            self._cancel(tuple(self._receivers.values()))
            self._engine.close()

    def _reap(self) -> None:
        while self._abandoned and self._lock.acquire(blocking=False):
            try:
                self._cancel_abandoned()
            finally:
                self._lock.release()

    def _cancel_abandoned(self) -> None:
        while self._abandoned:
            self._cancel(self._abandoned.popleft())

    def _step(self) -> None:
        """Outputs stay in line until they are handed out, so an interrupt loses none of the others."""
        if not self._outputs:
            self._outputs.extend(self._engine.step())
        while self._outputs:
            self._deliver(self._outputs.popleft())

    def _deliver(self, output: StepOutput) -> None:
        receiver = self._receivers.get(output.seq_id)
        if receiver is None:  # cancelled, or its `submit` was interrupted
            self._engine.abort(output.seq_id)
            return
        try:
            reason = receiver.receive(output)
            if reason is not None:
                self._engine.finish(output.seq_id, reason, receiver.num_tokens)
        except BaseException as error:
            self._engine.abort(output.seq_id)
            del self._receivers[output.seq_id]
            receiver.fail(f"{type(error).__name__}: {error}")
            if not isinstance(error, Exception):
                raise
        else:
            if receiver.finish_reason is not None:
                del self._receivers[output.seq_id]

    def _cancel(self, receivers: Iterable[Receiver]) -> None:
        gone = {id(receiver) for receiver in receivers}
        self._abort([seq_id for seq_id, receiver in self._receivers.items() if id(receiver) in gone])

    def _abort(self, seq_ids: Iterable[int]) -> None:
        for seq_id in seq_ids:
            self._engine.abort(seq_id)
            self._receivers.pop(seq_id).end(FinishReason.ABORTED)
