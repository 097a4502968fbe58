"""The worker's loop: requests in, engine steps, events out.

Three kinds of threads. The reader takes frames off the socket. Two preparers turn requests into tokens (templates,
tokenizers and schemas are bounded, but may take some hundred milliseconds), so that a step never waits for them. The
loop itself owns the engine: it submits what is prepared, drops what was cancelled, steps, and sends one frame of
events for each step.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, Protocol

from openherd.errors import HerdError
from openherd.llm.driver import Driver, Receiver
from openherd.llm.loading import LoadedModel
from openherd.serve.wire import Event, Frame, Link
from openherd.serve.worker.embeddings import prepare_embeddings
from openherd.serve.worker.jobs import prepare_job
from openherd.serve.worker.refusals import refusal
from openherd.serve.worker.texts import count, detokenize, render, tokenize

# Two, so that one request at the bounds of templates and schemas delays another, not all others.
NUM_PREPARERS = 2
# Gauges for /metrics: often enough to watch, rare enough to cost nothing.
STATS_EVERY_S = 0.2
# Of a request that was cancelled before it took anything, or after its end, which has said what it took.
_UNUSED: Event = {"type": "cancelled", "prompt_tokens": 0, "completion_tokens": 0}


class RunningJob(Protocol):
    """A request that goes through the engine. All but its making happens on the loop's thread."""

    id: int
    has_failed: bool  # it has said so, and what is left of it in the engine is of no use

    @property
    def answers(self) -> Sequence[Receiver]:
        """What receives the engine's outputs for it."""

    @property
    def is_done(self) -> bool: ...
    def submit(self, driver: Driver) -> None: ...
    def accepted(self) -> Event: ...
    def used(self, driver: Driver) -> tuple[int, int]:
        """Tokens computed so far: of prompts, and of answers."""

    def events(self) -> list[Event]:
        """What is new after a step."""


_JOBS: dict[str, Callable[[LoadedModel, Frame], RunningJob]] = {
    "generate": prepare_job,
    "embed": prepare_embeddings,
}
_TEXT_OPERATIONS: dict[str, Callable[[LoadedModel, Frame], Any]] = {
    "tokenize": tokenize,
    "detokenize": detokenize,
    "render": render,
    "count": count,
}


class WorkerLoop:
    """Serves one model over one link until the front goes away (`run` returns) or the engine breaks (it raises)."""

    def __init__(self, model: LoadedModel, link: Link) -> None:
        self._model = model
        self._link = link
        self._driver = Driver(model.engine)
        self._preparers = ThreadPoolExecutor(NUM_PREPARERS, "prepare")
        # Each entry is a job to submit, an id to cancel, or None when the front is gone.
        self._inbox: SimpleQueue[RunningJob | int | None] = SimpleQueue()
        self._jobs: dict[int, RunningJob] = {}
        self._open: set[int] = set()  # ids received and not ended: a cancel of any other comes too late
        self._cancelled: set[int] = set()  # before they were prepared
        self._stats_due = 0.0

    def facts(self) -> dict[str, Any]:
        """What the front says about the model."""
        model = self._model
        return {
            "context": model.engine.context,
            "trained_context": model.config.max_seq_len,
            "numerics_id": model.engine.numerics_id,
            "adapters": sorted(model.adapters),
            "tool_format": model.format.description,
            "thinks": model.format.thinks,
            "has_template": model.template_source is not None,
            "load_s": model.load_s,
            "stats": asdict(model.engine.stats),
        }

    def run(self) -> None:
        Thread(target=self._read, name="reader", daemon=True).start()
        while self._take_inbox(wait=not self._jobs):
            if self._jobs:
                self._driver.step()
            self._send_events()

    def _read(self) -> None:
        """Frames to where they are worked on, in order of arrival."""
        while (frame := self._link.receive()) is not None:
            if frame["op"] == "cancel":
                self._inbox.put(frame["id"])
                continue
            self._open.add(frame["id"])
            self._preparers.submit(self._prepare, frame)
        self._inbox.put(None)

    def _prepare(self, frame: Frame) -> None:
        """On a preparer's thread. What cannot be run is refused here."""
        request_id = frame["id"]
        try:
            if request_id in self._cancelled:
                event: Event = _UNUSED
            elif (prepare := _JOBS.get(frame["op"])) is not None:
                self._inbox.put(prepare(self._model, frame))
                return
            else:
                event = {"type": "value", "value": _TEXT_OPERATIONS[frame["op"]](self._model, frame)}
        except Exception as error:
            if not isinstance(error, HerdError):
                traceback.print_exc(file=sys.stderr)
            event = refusal(error, frame)
        self._forget(request_id)
        self._link.send({"events": [{"id": request_id, **event}]})

    def _take_inbox(self, *, wait: bool) -> bool:
        """Submit and cancel what came in. Returns False when the front is gone."""
        while True:
            try:
                entry = self._inbox.get(block=wait)
            except Empty:
                return True
            wait = False
            if entry is None:
                return False
            if isinstance(entry, int):
                self._cancel(entry)
            else:
                self._submit(entry)

    def _submit(self, job: RunningJob) -> None:
        if job.id in self._cancelled:
            self._forget(job.id)
            self._link.send({"events": [{"id": job.id, **_UNUSED}]})
            return
        try:
            job.submit(self._driver)
        except HerdError as error:
            self._forget(job.id)
            self._link.send({"events": [{"id": job.id, **refusal(error, {})}]})
            return
        self._jobs[job.id] = job
        self._link.send({"events": [job.accepted()]})

    def _cancel(self, request_id: int) -> None:
        job = self._jobs.pop(request_id, None)
        if job is not None:
            prompt_tokens, completion_tokens = job.used(self._driver)
            self._driver.cancel(job.answers)
            self._forget(request_id)
            used = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
            event = {"id": request_id, "type": "cancelled", **used}
            self._link.send({"events": [event], "stats": asdict(self._model.engine.stats)})
        elif request_id in self._open:
            self._cancelled.add(request_id)  # said when it has been prepared
        else:  # it ended while the cancel was on its way
            self._link.send({"events": [{"id": request_id, **_UNUSED}]})

    def _forget(self, request_id: int) -> None:
        self._open.discard(request_id)
        self._cancelled.discard(request_id)

    def _send_events(self) -> None:
        """What the step brought to every request, in one frame, and what has been computed for it until now."""
        events: list[Event] = []
        used = []
        now = time.monotonic()
        is_due = now >= self._stats_due
        for job in tuple(self._jobs.values()):
            new = job.events()
            events += new
            if new or is_due:
                used.append((job.id, *job.used(self._driver)))
            if job.has_failed:
                self._driver.cancel(job.answers)
            if job.is_done:
                del self._jobs[job.id]
                self._forget(job.id)
        frame: Frame = {"events": events, "used": used} if events or used else {}
        if not self._jobs or is_due:
            self._stats_due = now + STATS_EVERY_S
            frame["stats"] = asdict(self._model.engine.stats)
        if frame:
            self._link.send(frame)
