"""A training run as the experiments make it: a recipe of `recipes/` on data of their own, on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openherd.train.ingredients import open_ingredients
from openherd.train.recipe_file import load_recipe
from openherd.train.run_log import RunLog, read_log

if TYPE_CHECKING:
    from openherd.train.loop import Trainer


def trained(
    recipe_file: Path,
    folder: Path,
    train_on: Path,
    held_out: Path,
    threads: int,
    progress: Callable[[int, Mapping[str, float]], None],
) -> Trainer:
    """The run in `folder`/run, done; one that is there already goes on."""
    recipe = load_recipe(recipe_file)
    recipe = replace(recipe, data=replace(recipe.data, train=(train_on,), evaluation=(held_out,)))
    recipe = replace(recipe, run=replace(recipe.run, out=folder / "run", threads=threads))
    ingredients = open_ingredients(recipe, device="cpu", cores=threads)

    import torch

    from openherd.train.assemble import assemble
    from openherd.train.parallel.world import World

    torch.set_num_threads(threads)
    with RunLog(ingredients.recipe.run.out, tensorboard=False) as log:
        trainer = assemble(ingredients, World.single(), log, progress=progress)
        trainer.run()
    return trainer


def evaluations(folder: Path) -> Iterator[dict[str, Any]]:
    """What the run in `folder`/run logged of its evaluations, oldest first."""
    return (entry for entry in read_log(folder / "run") if entry.get("event") == "evaluation")
