"""herd train run: the training itself."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from openherd.cli import output
from openherd.cli.flags import JsonFlag, OfflineFlag
from openherd.cli.given import GivenFlags
from openherd.cli.train.estimate import PriceFlag, check_price
from openherd.cli.train.needs import require_torch
from openherd.cli.train.recipe_flags import FLAGS, RecipeFlags, recipe_of

if TYPE_CHECKING:
    from openherd.train.loop import Outcome


def run(
    recipe: Annotated[Path | None, Parameter(show_default=False)] = None,
    /,
    *,
    flags: RecipeFlags = FLAGS,
    price: PriceFlag = None,
    no_forecast: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    offline: OfflineFlag = False,
    json: JsonFlag = False,
    given: GivenFlags = (),
) -> int:
    """Train a model into a folder, or go on with the run that is there; Ctrl-C saves and ends.

    Parameters
    ----------
    recipe
        A TOML file with the same names as these flags, which win over it.
    no_forecast
        Begin without timing a few steps first; whether memory suffices is looked at all the same.
    """
    require_torch("herd train run")
    asked = recipe_of(recipe, flags, given)
    check_price(price)
    from openherd.train.interrupts import Interrupted, Interrupts
    from openherd.train.start import train

    try:
        with Interrupts() as interrupts:
            outcome = train(
                asked,
                interrupts,
                say=output.note,
                price_per_hour=price,
                with_forecast=not no_forecast,
                offline=offline,
            )
    except Interrupted as error:
        return error.exit_status
    if os.environ.get("RANK", "0") != "0":  # of several processes that torchrun starts, one speaks
        return outcome.exit_status
    if json:
        output.document(_document(outcome, asked.run.out))
    else:
        _show(outcome, asked.run.out)
    return outcome.exit_status


def _document(outcome: Outcome, folder: Path) -> dict[str, Any]:
    state = outcome.state
    return {
        "folder": str(folder),
        "checkpoint": str(outcome.checkpoint),
        "step": state.step,
        "updates": state.updates,
        "finished": outcome.received is None,
        "best_step": state.best_step if state.best_step >= 0 else None,
        "best_loss": state.best_loss,
        "report": str(folder / "report.html"),
    }


def _show(outcome: Outcome, folder: Path) -> None:
    state = outcome.state
    best = (
        "" if state.best_loss is None else f"; best evaluation loss {state.best_loss:.4f} at step {state.best_step:,}"
    )
    if outcome.received is None:
        print(f"{state.step:,} steps done{best}")
        print(f"look at it:  {folder / 'report.html'}")
        print(f"export it:   herd train export {folder} MODEL.gguf")
    else:
        print(f"stopped after {state.step:,} steps, which are saved{best}; the same command goes on")
