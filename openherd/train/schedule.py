"""The learning rate of each step: a pure function of the recipe and the step.

All schedules rise linearly over the warm-up, to the peak at its last step. Then
    cosine     half a cosine down to the final share at the last step (Loshchilov and Hutter 2017, "SGDR", eq. 5)
    wsd        warm-up, stable, decay (Hu et al. 2024, "MiniCPM", section 4.2): stays, and falls over the last fifth.
               The fall is 1 - sqrt, which Hägele et al. 2024 ("Scaling Laws and Compute-Optimal Training Beyond Fixed
               Training Durations", section 3) found better than MiniCPM's exponential
    constant   stays
"""

from __future__ import annotations

import math

from openherd.train.recipe import OptimizerRecipe

DECAY_SHARE = 0.2
"""The part of a run over which `wsd` falls."""


def learning_rate(recipe: OptimizerRecipe, step: int, steps: int) -> float:
    """Of `step`, from 0, of a run of `steps`."""
    if step < recipe.warmup_steps:
        return recipe.learning_rate * (step + 1) / recipe.warmup_steps
    return recipe.learning_rate * (recipe.final_share + (1 - recipe.final_share) * _share_left(recipe, step, steps))


def _share_left(recipe: OptimizerRecipe, step: int, steps: int) -> float:
    """Of the way between the final rate and the peak, from 1 down to 0."""
    if recipe.schedule == "constant":
        return 1.0
    if recipe.schedule == "cosine":
        return (1 + math.cos(math.pi * _passed(step, recipe.warmup_steps, steps))) / 2
    begin = max(recipe.warmup_steps, steps - round(DECAY_SHARE * steps))
    return 1 - math.sqrt(_passed(step, begin, steps)) if step >= begin else 1.0


def _passed(step: int, begin: int, end: int) -> float:
    """How much of the steps `begin` to `end` is over with this one."""
    return min(1.0, (step + 1 - begin) / max(1, end - begin))
