"""The forecast of a run: memory from the recipe, then memory, time and cost from a few real steps on this machine.

Said before anything is begun; a run that does not fit the memory is refused with what to change. Time is steps,
evaluations, samples and checkpoints as often as the recipe says, each as long as it was when it was tried.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from openherd.config import ModelConfig
from openherd.engine.memory import free_memory
from openherd.train.assemble import DTYPES
from openherd.train.ingredients import Ingredients
from openherd.train.machine import Machine, forget_peak, measure_machine, peak_memory, resident_memory
from openherd.train.memory import (
    Memory,
    as_table,
    flops_per_token,
    memory_of,
    num_parameters_of,
    trained_parameters,
)
from openherd.train.parallel.world import World
from openherd.train.probe import Probe, probe
from openherd.train.progress import duration
from openherd.train.recipe import Recipe

LIBRARIES = {"cpu": 215 << 20, "cuda": 600 << 20}
"""Bytes beside tensors: what PyTorch loads with its first steps, and workspaces of its matrix products (measured)."""

KEPT_BY_ALLOCATOR = {"cpu": 1.12, "cuda": 1.0}
"""A run's peak as a multiple of a few steps' peak: glibc keeps more of what is freed the longer a run is (measured:
1.12 to 1.14 on runs of 260 and 410 MB)."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a run will take."""

    recipe: Recipe
    config: ModelConfig
    parameters: int
    trained: int
    flops: float  # of the whole run
    memory: Memory
    needed_bytes: int  # on each device, above what the process has now
    free_bytes: int
    processes: int = 1
    machine: Machine | None = None
    probe: Probe | None = None
    price_per_hour: float | None = None
    remedy: str | None = None  # what to change where it does not fit

    @property
    def fits(self) -> bool:
        return self.needed_bytes <= self.free_bytes

    @property
    def shortage(self) -> str:
        need, have = gigabytes(self.needed_bytes), gigabytes(self.free_bytes)
        return f"the run needs {need} of memory and {have} are free"

    @property
    def seconds(self) -> float | None:
        """Of the whole run; None when nothing was timed."""
        if self.probe is None:
            return None
        run, probe = self.recipe.run, self.probe
        evaluations, samples, saves = (
            times(run.steps, n) for n in (run.eval_every, run.sample_every, run.checkpoint_every)
        )
        between = evaluations * probe.evaluation + samples * probe.samples + saves * probe.checkpoint
        return probe.start + run.steps * probe.step + between

    @property
    def tokens_per_s(self) -> float | None:
        return None if self.probe is None else self.probe.tokens / self.probe.step

    @property
    def utilisation(self) -> float | None:
        """The share of the measured peak of all processes' machines that steps use."""
        if self.probe is None or self.machine is None:
            return None
        used = flops_per_token(self.recipe, self.config) * self.probe.tokens / self.probe.step
        return used / (self.machine.peak_flops * self.processes)

    @property
    def cost(self) -> float | None:
        if self.seconds is None or self.price_per_hour is None:
            return None
        return self.seconds / 3600 * self.price_per_hour

    def document(self) -> dict[str, Any]:
        """For --json."""
        run = self.recipe.run
        return {
            "parameters": self.parameters,
            "trained_parameters": self.trained,
            "steps": run.steps,
            "rows_per_step": run.rows_per_step,
            "seq_len": self.recipe.data.seq_len,
            "learning_rate": self.recipe.optimizer.learning_rate,
            "flops": self.flops,
            "memory": {"needed": self.needed_bytes, "free": self.free_bytes, **dict(as_table(self.memory))},
            "fits": self.fits,
            "remedy": self.remedy,
            "device": run.device,
            "peak_flops_per_s": self.machine and self.machine.peak_flops,
            "step_s": self.probe and self.probe.step,
            "tokens_per_s": self.tokens_per_s,
            "utilisation": self.utilisation,
            "seconds": self.seconds,
            "cost": self.cost,
        }


def forecast(
    ingredients: Ingredients, world: World, *, price_per_hour: float | None = None, timed: bool = True
) -> Forecast:
    """Of a resolved recipe. Steps are timed only where the run fits the memory."""
    recipe, config = ingredients.recipe, ingredients.config
    memory = memory_of(recipe, config, device=world.device.type, processes=world.num_processes)
    made = Forecast(
        recipe=recipe,
        config=config,
        parameters=num_parameters_of(config),
        trained=trained_parameters(recipe, config),
        flops=flops_per_token(recipe, config) * recipe.data.seq_len * recipe.run.rows_per_step * recipe.run.steps,
        memory=memory,
        needed_bytes=memory.peak + LIBRARIES[world.device.type],
        free_bytes=_free(world),
        processes=world.num_processes,
        price_per_hour=price_per_hour,
    )
    if not made.fits or not timed:
        return _with_remedy(made, world)
    before, is_counted = resident_memory(world.device), forget_peak(world.device)
    machine = measure_machine(world.device.type, DTYPES[recipe.run.dtype])
    made = replace(made, machine=machine, probe=probe(ingredients, world))
    used = peak_memory(world.device) - before
    if is_counted:
        made = replace(made, needed_bytes=round(KEPT_BY_ALLOCATOR[world.device.type] * used))
    return _with_remedy(made, world)


def lines_of(forecast: Forecast) -> list[str]:
    """For a person."""
    recipe, run = forecast.recipe, forecast.recipe.run
    trained = "" if forecast.trained == forecast.parameters else f", {millions(forecast.trained)} of them trained"
    tokens = run.steps * run.rows_per_step * recipe.data.seq_len
    parts = ", ".join(f"{name} {gigabytes(size)}" for name, size in as_table(forecast.memory))
    return [
        f"model    {millions(forecast.parameters)} parameters{trained}: {_shape(forecast.config)}",
        f"run      {run.steps:,} steps of {run.rows_per_step:,} rows of {recipe.data.seq_len:,} tokens "
        f"({millions(tokens)} tokens), learning rate {recipe.optimizer.learning_rate:g}",
        f"memory   {gigabytes(forecast.needed_bytes)} of {gigabytes(forecast.free_bytes)} free ({parts})",
        *_time_lines(forecast),
        *([] if forecast.fits else [f"too much: {forecast.shortage}; {forecast.remedy}"]),
    ]


def times(steps: int, every: int) -> int:
    """How often something happens that is due at step 0, then each `every` steps, and at the end."""
    return steps // every + 1 + bool(steps % every)


def gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def millions(count: float) -> str:
    return f"{count / 1e9:.1f} billion" if count >= 1e9 else f"{count / 1e6:.1f} million"


def _time_lines(forecast: Forecast) -> Iterator[str]:
    if forecast.probe is None or forecast.machine is None or forecast.seconds is None:
        return
    cost = "" if forecast.cost is None else f", cost {forecast.cost:.2f}"
    yield (
        f"time     {duration(forecast.seconds)}{cost} ({forecast.probe.step:.3g} s a step, "
        f"{forecast.tokens_per_s:,.0f} tokens/s, {100 * (forecast.utilisation or 0):.0f} % of the "
        f"{forecast.machine.peak_flops / 1e9:,.0f} GFLOP/s that {forecast.machine.name} does)"
    )


def _shape(config: ModelConfig) -> str:
    heads = f"{config.n_heads} heads" + (f" on {config.n_kv_heads}" if config.n_kv_heads != config.n_heads else "")
    return f"{config.n_layers} layers, {config.dim} wide, {heads}, {config.vocab_size:,} tokens of vocabulary"


def _free(world: World) -> int:
    if world.device.type == "cuda":
        return int(torch.cuda.mem_get_info(world.device)[0])
    return free_memory() // world.num_local_processes


def _with_remedy(made: Forecast, world: World) -> Forecast:
    return made if made.fits else replace(made, remedy=_remedy(made, world))


def _remedy(made: Forecast, world: World) -> str:
    """The first change, from the mildest on, with which the run would fit: where steps were tried, in the proportion in
    which they took more than the recipe alone foretold."""
    libraries = LIBRARIES[world.device.type]
    scale = made.needed_bytes / (made.memory.peak + libraries)
    for words, recipe in _milder(made.recipe):
        memory = memory_of(recipe, made.config, device=world.device.type, processes=world.num_processes)
        needed = scale * (memory.peak + libraries)
        if needed <= made.free_bytes:
            return f"it fits with {words} ({gigabytes(needed)})"
    return "no change of the recipe makes it fit: train a smaller model, or on more memory or processes"


def _milder(recipe: Recipe) -> Iterator[tuple[str, Recipe]]:
    """Changes that do not alter the result first, then those that do."""
    least = 2 if recipe.objective == "dpo" else 1
    rows = recipe.run.micro_rows
    while rows > least:
        rows = max(least, rows // 2)
        if recipe.run.rows_per_step * least % rows == 0:
            yield f"run.micro_rows = {rows}", replace(recipe, run=replace(recipe.run, micro_rows=rows))
    small = replace(recipe, run=replace(recipe.run, micro_rows=least, activation_checkpointing=True))
    words = f"run.micro_rows = {least} and run.activation_checkpointing = true"
    yield words, small
    if recipe.model.init:
        lora = replace(small.lora, rank=small.lora.rank or 16)
        yield f"{words} and lora.rank = {lora.rank}", replace(small, lora=lora)
        for base in ("q8_0", "q4_0"):
            yield (
                f"{words}, lora.rank = {lora.rank} and lora.base_type = {base}",
                replace(small, lora=replace(lora, base_type=base)),
            )
