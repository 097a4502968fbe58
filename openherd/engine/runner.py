"""One step on the backend: forward, what the taps see of it, scores of prompts, draws."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import ParamSpec, TypeVar

import numpy as np

from openherd.engine.batch import BatchBuilder
from openherd.engine.protocols import Backend, Sampled, Step, TapRows
from openherd.engine.sampling import Draw, SamplePlanner
from openherd.engine.scheduler import Chunk, Schedule
from openherd.engine.taps import show
from openherd.messages import FinishReason, TokenLogprob
from openherd.stats import EngineStats

_P = ParamSpec("_P")
_R = TypeVar("_R")


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a sequence ends, in words where the reason alone does not say it."""

    reason: FinishReason
    detail: str | None = None


# `SamplePlanner` has refused processors that leave no token, so it is the logits.
NO_TOKEN = Ending(FinishReason.ERROR, "no token can be drawn: the model's logits are not finite numbers")
NO_SCORE = Ending(FinishReason.ERROR, "the model's logits are not finite numbers")


def failure(error: BaseException) -> Ending:
    return Ending(FinishReason.ERROR, f"{type(error).__name__}: {error}")


@dataclass(slots=True)
class Drawn:
    token: int
    logprob: TokenLogprob | None  # where asked


@dataclass(slots=True)
class StepResult:
    """What a step brought to the sequences of its chunks, by sequence id."""

    chunks: list[Chunk]
    computed: bool = False  # the chunks are in the KV cache
    endings: dict[int, Ending] = field(default_factory=dict)
    scores: dict[int, list[float]] = field(default_factory=dict)
    drawn: dict[int, list[Drawn]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """What failed while the step was planned ends as what fails in it."""
        for chunk in self.chunks:
            if chunk.error is not None:
                self.endings[chunk.seq.id] = failure(chunk.error)

    def fail(self, error: Exception) -> None:
        """The backend raised: nothing of this step can be relied on."""
        self.computed = False
        self.scores, self.drawn = {}, {}
        self.endings = {chunk.seq.id: failure(error) for chunk in self.chunks}


class StepRunner:
    """Calls the backend. Its own exceptions pass through; those of processors, drafters and the like become endings."""

    def __init__(self, backend: Backend, batches: BatchBuilder, planner: SamplePlanner, stats: EngineStats) -> None:
        self._backend = backend
        self._batches = batches
        self._planner = planner
        self._stats = stats

    def forward(self, schedule: Schedule, result: StepResult) -> Step:
        """Compute the scheduled rows and show them to the taps."""
        if schedule.copies:
            self._timed(self._backend.copy_blocks, 0, np.array(schedule.copies, np.int32))
        batch = self._batches.build(schedule.chunks)
        step = self._timed(self._backend.forward, batch)
        result.computed = True
        if batch.taps:
            self._observe(step, batch.taps, result)
        return step

    def sample(self, step: Step, result: StepResult) -> None:
        """Score prompt tokens and draw new ones."""
        scored = [chunk for chunk in result.chunks if chunk.num_scored]
        if scored:
            self._score(step, scored, result)
        draws = self._prepare(result)
        if draws:
            sampled = self._timed(self._backend.sample, step, self._planner.plan(draws))
            result.drawn = _runs(draws, sampled)
            result.endings |= {seq_id: NO_TOKEN for seq_id, run in result.drawn.items() if not run}

    def _observe(self, step: Step, taps: tuple[TapRows, ...], result: StepResult) -> None:
        hidden = [self._timed(self._backend.hidden, step, i) for i in range(len(taps))]
        for chunk in result.chunks:
            try:
                verdict = show(chunk, taps, hidden)
            except Exception as error:
                result.endings[chunk.seq.id] = failure(error)
            else:
                if verdict is not None:
                    result.endings[chunk.seq.id] = Ending(FinishReason.CONTENT_FILTER, verdict.reason)

    def _score(self, step: Step, scored: list[Chunk], result: StepResult) -> None:
        rows = [row for chunk in scored for row in range(chunk.first_logit_row, chunk.draw_row)]
        targets = [token for chunk in scored for token in chunk.scored_ids]
        values = self._timed(self._backend.score, step, np.array(rows, np.int32), np.array(targets, np.int32)).tolist()
        start = 0
        for chunk in scored:
            scores = values[start : start + chunk.num_scored]
            start += chunk.num_scored
            if all(map(math.isfinite, scores)):
                result.scores[chunk.seq.id] = scores
            else:
                result.endings[chunk.seq.id] = NO_SCORE

    def _prepare(self, result: StepResult) -> list[Draw]:
        """The draws of the sequences whose last token was computed, drafts included; those that fail end instead."""
        draws: list[Draw] = []
        for chunk in result.chunks:
            if chunk.draws and chunk.seq.id not in result.endings:
                try:
                    draws += self._planner.prepare(chunk.seq, chunk.draw_row, chunk.drafts)
                except Exception as error:
                    result.endings[chunk.seq.id] = failure(error)
        return draws

    def _timed(self, call: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> _R:
        started = perf_counter()
        try:
            return call(*args, **kwargs)
        finally:
            self._stats.backend_s += perf_counter() - started


def _runs(draws: list[Draw], sampled: Sampled) -> dict[int, list[Drawn]]:
    """What each sequence drew, by its id: up to the first draw that is not what was drafted there.

    Empty where the first draw found no token; a later draw without one is left to the next step, whose first it is.
    """
    runs: dict[int, list[Drawn]] = {}
    ended: set[int] = set()
    for i, (draw, token) in enumerate(zip(draws, sampled.token_ids.tolist(), strict=True)):
        run = runs.setdefault(draw.seq.id, [])
        if draw.seq.id not in ended and token >= 0:
            run.append(Drawn(token, _logprob(draw, sampled, i)))
        if token != draw.draft:
            ended.add(draw.seq.id)
    return runs


def _logprob(draw: Draw, sampled: Sampled, i: int) -> TokenLogprob | None:
    """The i-th draw's log-probability and alternatives, where asked."""
    num_top = draw.seq.request.params.logprobs
    if num_top is None:
        return None
    top_ids, top = sampled.top_ids[i, :num_top].tolist(), sampled.top_logprobs[i, :num_top].tolist()
    alternatives = tuple((token, value) for token, value in zip(top_ids, top, strict=True) if token >= 0)
    return TokenLogprob(int(sampled.token_ids[i]), float(sampled.logprobs[i]), alternatives)
