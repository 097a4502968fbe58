"""herd train estimate: what a run will take, before it is begun."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from openherd.cli import output
from openherd.cli.flags import JsonFlag, OfflineFlag
from openherd.cli.given import GivenFlags
from openherd.cli.train.needs import require_torch
from openherd.cli.train.recipe_flags import FLAGS, RecipeFlags, recipe_of
from openherd.errors import OptionError

PriceFlag = Annotated[
    float | None,
    Parameter(name="--price", show_default=False, help="What an hour of this machine costs, to forecast the cost."),
]


def estimate(
    recipe: Annotated[Path | None, Parameter(show_default=False)] = None,
    /,
    *,
    flags: RecipeFlags = FLAGS,
    price: PriceFlag = None,
    offline: OfflineFlag = False,
    json: JsonFlag = False,
    given: GivenFlags = (),
) -> int:
    """Forecast memory, time and cost of a run: a few steps are computed and timed, and nothing is written.

    Parameters
    ----------
    recipe
        A TOML file with the same names as these flags, which win over it.
    """
    require_torch("herd train estimate")
    asked = recipe_of(recipe, flags, given)
    check_price(price)
    from openherd.train.estimate import forecast, lines_of
    from openherd.train.start import open_run

    ingredients, world = open_run(asked, offline=offline)
    with world:
        made = forecast(ingredients, world, price_per_hour=price)
    if json:
        output.document(made.document())
    else:
        print("\n".join(lines_of(made)))
    return 0 if made.fits else 1


def check_price(price: float | None) -> None:
    if price is not None and not 0 <= price < 1e9:
        raise OptionError(f"--price must be a number of at least 0, not {price!r}")
