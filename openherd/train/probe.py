"""A few real steps, timed: what this machine makes of this very run.

The run's own model, data, objective, optimiser, evaluation, samples and checkpoints are made and used as the loop
would, each for a moment; what takes longer is timed in part. The weights that come of it are thrown away.
"""

from __future__ import annotations

import gc
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path

import torch
from torch import Tensor

from openherd.train.assemble import build_evaluation, build_model, build_objective, build_order, build_samples
from openherd.train.batch import Batch
from openherd.train.checkpoint import MODEL, OPTIMIZER, save
from openherd.train.evaluation import Evaluation
from openherd.train.ingredients import Ingredients
from openherd.train.loop import Trainer
from openherd.train.model.decoder import Decoder
from openherd.train.objectives.objective import Objective
from openherd.train.objectives.reference import Reference
from openherd.train.optimizer import AdamW
from openherd.train.parallel.world import World
from openherd.train.run_log import RunLog
from openherd.train.run_state import RunState, SavedState

STEP_SECONDS, EVALUATION_SECONDS = 3.0, 10.0
"""How long micro-batches and an evaluation are timed."""
FEWEST, MOST = 3, 60
"""Micro-batches that are timed behind the first, whatever they take."""
CHECKPOINT_BYTES = 256 << 20
"""Of a larger checkpoint so much is written."""


@dataclass(frozen=True, slots=True)
class Probe:
    """Seconds of each part of a run, once."""

    start: float  # until the first step: weights made or loaded, data laid out
    step: float
    tokens: float  # read in a step, padding not counted
    evaluation: float
    samples: float
    checkpoint: float


def probe(ingredients: Ingredients, world: World) -> Probe:
    """Takes some ten seconds with small models, and longer where one micro-batch or loading does."""
    began = time.perf_counter()
    model = build_model(ingredients, world)
    reference = Reference(None if ingredients.recipe.lora.rank else model)  # takes the time of one, not the memory
    objective = build_objective(ingredients, model, build_order(ingredients), reference)
    adamw = Trainer(model, objective, ingredients.recipe, world, RunLog(None)).adamw
    evaluation, samples = build_evaluation(ingredients, world, objective), build_samples(ingredients, world)
    start = time.perf_counter() - began
    # In the loop's own order, on which depends what the memory allocator keeps.
    evaluation_s = 0.0 if evaluation is None else _time_evaluation(evaluation, model)
    samples_s = 0.0 if samples is None else _seconds(world, partial(samples, model))
    checkpoint_s = _time_checkpoint(ingredients.recipe.run.out, model, adamw, world)
    step, tokens = _time_step(ingredients, world, model, objective, adamw)
    if samples is not None:
        samples_s = _seconds(world, partial(samples, model))
    del model, reference, objective, adamw, evaluation, samples
    gc.collect()  # FSDP2's modules refer to each other, and the run's own model is made next
    return Probe(start, step, tokens, evaluation_s, samples_s, checkpoint_s)


def _time_step(
    ingredients: Ingredients, world: World, model: Decoder, objective: Objective, adamw: AdamW
) -> tuple[float, float]:
    """Seconds of a whole step, and tokens in it. The first micro-batch and the first update are not counted: they make
    what the others find made."""
    began = time.perf_counter()
    batches = objective.micro_batches(0, world.rank, world.size, ingredients.recipe.run.micro_rows)
    drawing = time.perf_counter() - began
    _backward(world, model, objective, batches[0])
    micro = list(_timed_batches(world, model, objective, batches))
    _update(world, adamw)
    _backward(world, model, objective, batches[0])
    update = _seconds(world, lambda: _update(world, adamw))
    tokens = world.sum(float(sum(batch.num_tokens for batch in batches)))
    return drawing + len(batches) * sum(micro) / len(micro) + update, tokens


def _timed_batches(world: World, model: Decoder, objective: Objective, batches: Sequence[Batch]) -> Iterator[float]:
    """Seconds of each; all processes stop together."""
    began = time.perf_counter()
    for count, batch in enumerate(cycle(batches)):
        is_enough = count >= FEWEST and (count >= MOST or time.perf_counter() - began > STEP_SECONDS)
        if world.any(is_enough):
            return
        yield _seconds(world, lambda batch=batch: _backward(world, model, objective, batch))  # type: ignore[misc]


def _backward(world: World, model: Decoder, objective: Objective, batch: Batch) -> None:
    weight = world.sum(objective.weight(batch)) or 1.0
    objective.loss(model, batch.to(world.device), weight).loss.backward()


def _update(world: World, adamw: AdamW) -> None:
    adamw.update(1e-6, world.gradient_norm(adamw.parameters.values()))
    adamw.forget_gradients()


def _time_evaluation(evaluation: Evaluation, model: Decoder) -> float:
    """The whole of it, or so much as fits the time, when the rest is taken to be as long as what it is a part of."""
    began, turns = time.perf_counter(), 0

    def stop() -> bool:
        nonlocal turns
        turns += 1
        return time.perf_counter() - began > EVALUATION_SECONDS

    evaluation.measure(model, stop)
    return (time.perf_counter() - began) * max(1.0, evaluation.num_turns / turns)


def _time_checkpoint(out: Path, model: Decoder, adamw: AdamW, world: World) -> float:
    """On the file system of the run's folder."""
    weights = {name: value for name, value in model.state_dict().items() if name in adamw.parameters}
    tensors = {MODEL: weights, OPTIMIZER: adamw.moments()}
    total = sum(_bytes(named) for named in tensors.values())
    part = {name: _first(named, CHECKPOINT_BYTES // len(tensors)) for name, named in tensors.items()}
    written = sum(_bytes(named) for named in part.values())
    with _scratch_folder(out, world) as folder, RunLog(folder if world.is_main else None) as log:
        log.event("forecast", 0)  # what the log loads takes memory too
        seconds = _seconds(world, lambda: save(folder, SavedState(RunState(), {}), part, world))
    return seconds * total / max(1, written)


@contextmanager
def _scratch_folder(out: Path, world: World) -> Iterator[Path]:
    """Beside the run's folder, or the nearest folder that is there; the same on every process."""
    home = next(parent for parent in out.parents if parent.is_dir())
    if world.num_processes == 1:
        with tempfile.TemporaryDirectory(prefix=".herd-forecast-", dir=home) as scratch:
            yield Path(scratch)
        return
    # A name that every process knows, and runs into other folders do not share.
    folder = home / f".herd-forecast-{hashlib.sha256(os.fsencode(out.absolute())).hexdigest()[:12]}"
    if world.is_main:
        shutil.rmtree(folder, ignore_errors=True)  # of a forecast that was killed
    world.barrier()
    try:
        yield folder
    finally:
        world.barrier()
        if world.is_main:
            shutil.rmtree(folder, ignore_errors=True)


def _first(named: dict[str, Tensor], most: int) -> dict[str, Tensor]:
    """Tensors until there are `most` bytes, one at least."""
    kept: dict[str, Tensor] = {}
    for name, value in named.items():
        if kept and _bytes(kept) >= most:
            break
        kept[name] = value
    return kept


def _bytes(named: dict[str, Tensor]) -> int:
    return sum(value.numel() * value.element_size() for value in named.values())


def _seconds(world: World, work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    if world.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began
