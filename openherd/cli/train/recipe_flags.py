"""A recipe as flags: every key of a table is a flag of the same name, and wins over the file."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from openherd.options import help_text
from openherd.train.recipe import (
    SECTIONS,
    DataRecipe,
    DpoRecipe,
    GrpoRecipe,
    LoraRecipe,
    ModelRecipe,
    ObjectiveName,
    OptimizerRecipe,
    Recipe,
    RunRecipe,
)
from openherd.train.recipe_file import Overrides, load_recipe


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class RecipeFlags:
    """`Recipe`, flattened."""

    objective: Annotated[ObjectiveName, Parameter(help=help_text(Recipe, "objective"))] = Recipe().objective
    model: Annotated[ModelRecipe, Parameter(name="*", group="Model")] = field(default_factory=ModelRecipe)
    data: Annotated[DataRecipe, Parameter(name="*", group="Data")] = field(default_factory=DataRecipe)
    optimizer: Annotated[OptimizerRecipe, Parameter(name="*", group="Optimizer")] = field(
        default_factory=OptimizerRecipe
    )
    run: Annotated[RunRecipe, Parameter(name="*", group="Run")] = field(default_factory=RunRecipe)
    lora: Annotated[LoraRecipe, Parameter(name="*", group="LoRA")] = field(default_factory=LoraRecipe)
    dpo: Annotated[DpoRecipe, Parameter(name="*", group="Preferences (dpo)")] = field(default_factory=DpoRecipe)
    grpo: Annotated[GrpoRecipe, Parameter(name="*", group="Checked answers (grpo)")] = field(default_factory=GrpoRecipe)


FLAGS = RecipeFlags()
"""Defaults for a verb's signature."""

RecipeFile = Annotated[Path | None, Parameter(show_default=False)]


def recipe_of(file: Path | None, flags: RecipeFlags, given: Collection[str]) -> Recipe:
    """The file with what was typed over it. Raises InputError."""
    return load_recipe(file, _overrides(flags, frozenset(given)))


def _overrides(flags: RecipeFlags, given: frozenset[str]) -> Overrides:
    overrides: dict[str, dict[str, Any]] = {"": {"objective": flags.objective} if "objective" in given else {}}
    for section in SECTIONS:
        values = getattr(flags, section)
        overrides[section] = {e.name: getattr(values, e.name) for e in fields(values) if e.name in given}
    return overrides
