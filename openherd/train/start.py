"""The run from beginning to end: open, forecast, refuse or train, and leave a report."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Literal

import torch

from openherd.checkpoints.new_file import write_new_text
from openherd.errors import HerdError
from openherd.kernels.cores import compute_threads
from openherd.train.assemble import DTYPES, assemble
from openherd.train.checkpoint import locked, steps_of
from openherd.train.determinism import fix_workspace
from openherd.train.estimate import forecast, lines_of
from openherd.train.ingredients import Ingredients, open_ingredients
from openherd.train.interrupts import Interrupts
from openherd.train.loop import Outcome
from openherd.train.machine import Machine, measure_machine, resident_memory
from openherd.train.memory import flops_per_token
from openherd.train.model_facts import keep_model_facts
from openherd.train.parallel.world import World
from openherd.train.progress import ProgressLine
from openherd.train.recipe import Recipe
from openherd.train.recipe_file import RECIPE_FILE, as_toml
from openherd.train.report import LOSS_FILE, REPORT_FILE, write_report
from openherd.train.run_log import LOG_FILE, RunLog

REPORT_SECONDS = 30.0
"""Between reports while a run goes on; the last one is made at its end."""


def open_run(recipe: Recipe, *, offline: bool = False) -> tuple[Ingredients, World]:
    """Everything checked, with the threads that the recipe says. Raises InputError and its kinds."""
    fix_workspace()  # a run that goes on makes no forecast, and must find CUDA as one that did
    world = World.from_environment(recipe.run.device, tensor_parallel=recipe.run.tensor_parallel)
    try:
        cores = max(
            1, compute_threads(recipe.run.threads or None) // (1 if recipe.run.threads else world.num_local_processes)
        )
        kind: Literal["cpu", "cuda"] = "cuda" if world.device.type == "cuda" else "cpu"
        ingredients = open_ingredients(recipe, device=kind, cores=cores, offline=offline)
        torch.set_num_threads(ingredients.recipe.run.threads)
    except BaseException:
        world.close()
        raise
    return ingredients, world


def train(
    recipe: Recipe,
    interrupts: Interrupts,
    *,
    say: Callable[[str], None],
    price_per_hour: float | None = None,
    with_forecast: bool = True,
    offline: bool = False,
) -> Outcome:
    """Train into the recipe's folder, or go on there. `say` gets lines for a person, on the main process alone.

    Raises InputError for what does not fit together, HerdError when memory does not suffice, and what `Trainer` raises.
    """
    ingredients, world = open_run(recipe, offline=offline)
    with world:
        tell = say if world.is_main else _silent
        machine = _announce(ingredients, world, tell, price_per_hour, with_forecast)
        outcome = _train(ingredients, world, interrupts, tell, machine)
    return outcome


def _announce(
    ingredients: Ingredients, world: World, say: Callable[[str], None], price: float | None, timed: bool
) -> Machine:
    """The forecast, before anything runs; too little memory ends it here. Returns what the machine can do."""
    out, resumes = ingredients.recipe.run.out, bool(steps_of(ingredients.recipe.run.out))
    made = forecast(ingredients, world, price_per_hour=price, timed=timed and not resumes)
    for line in lines_of(made):
        say(f"herd: {line}")
    if not made.fits:
        raise HerdError(made.shortage, hint=made.remedy)
    say(f"herd: {'going on in' if resumes else 'training into'} {out}: {LOG_FILE}, {LOSS_FILE}, {REPORT_FILE}")
    return made.machine or measure_machine(world.device.type, DTYPES[ingredients.recipe.run.dtype])


def _train(
    ingredients: Ingredients, world: World, interrupts: Interrupts, say: Callable[[str], None], machine: Machine
) -> Outcome:
    recipe, out = ingredients.recipe, ingredients.recipe.run.out
    if world.is_main:
        _keep(ingredients)
    world.barrier()
    with RunLog(out if world.is_main else None) as log:
        line = ProgressLine(
            recipe.run.steps,
            flops_per_token=flops_per_token(recipe, ingredients.config),
            peak_flops=machine.peak_flops * world.num_processes,
            memory=lambda: resident_memory(world.device),
        )
        watch = _Watch(line, recipe)
        try:
            return assemble(
                ingredients, world, log, progress=watch, interrupts=interrupts, say=lambda text: say(f"herd: {text}")
            ).run()
        finally:
            line.close()
            if world.is_main:
                with suppress(OSError):  # a full disk must not hide what ended the run
                    write_report(out, as_toml(recipe))


def _keep(ingredients: Ingredients) -> None:
    """What the run's folder says of the run beside its checkpoints. A run that goes on keeps what it was begun with; a
    start that came to no checkpoint leaves nothing that counts."""
    out = ingredients.recipe.run.out
    with locked(out):
        begins = not steps_of(out)
        keep_model_facts(out, ingredients.facts(), begins=begins)
        if begins:
            write_new_text(out / RECIPE_FILE, as_toml(ingredients.recipe))


class _Watch:
    """Called after each step: the progress line, and now and then the report."""

    def __init__(self, line: ProgressLine, recipe: Recipe) -> None:
        self._line, self._recipe, self._reported = line, recipe, 0.0

    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        self._line.step(step, metrics)
        if time.monotonic() - self._reported > REPORT_SECONDS:
            self._reported = time.monotonic()
            with suppress(OSError):
                write_report(self._recipe.run.out, as_toml(self._recipe))


def _silent(text: str) -> None:
    """On processes other than the main one."""
