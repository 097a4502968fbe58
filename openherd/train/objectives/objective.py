"""What the loop asks of an objective: this rank's share of a step, what it weighs, and its loss."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from openherd.errors import OptionError

if TYPE_CHECKING:
    from openherd.train.batch import Batch
    from openherd.train.model.decoder import Decoder


@dataclass(frozen=True, slots=True)
class StepLoss:
    """One micro-batch's part of the step's loss: parts of all micro-batches and ranks are added, never averaged.

    `metrics` are detached sums over what `Objective.weight` counts: added up in the same way and divided by the step's
    total weight they are the step's means.
    """

    loss: Tensor  # [] float32, differentiable, already divided by the step's total weight
    metrics: dict[str, Tensor] = field(default_factory=dict)  # [] each


class Objective(Protocol):
    """A step goes: `micro_batches` once, their `weight`s summed over all ranks, `loss` and backward for each.

    Since the sum of weights is known before the first backward, gradients do not depend on how a step is cut into
    micro-batches and ranks (T9).
    """

    @property
    def name(self) -> str: ...

    @property
    def fingerprint(self) -> str:
        """Of the data, its order and the objective's settings: a resumed run must have the same."""

    def micro_batches(self, step: int, rank: int, world: int, micro_rows: int) -> list[Batch]:
        """This rank's share of the step, at most `micro_rows` rows each: as many micro-batches on every rank.

        A pure function of its arguments and, for an objective that generates, of the weights. Raises `OptionError`
        when the step's rows cannot be shared evenly.
        """

    def weight(self, batch: Batch) -> float:
        """How much of the step's loss this micro-batch is: learnt tokens, pairs or answers."""

    def loss(self, model: Decoder, batch: Batch, total: float) -> StepLoss:
        """`total`: the sum of `weight` over all micro-batches and ranks of the step, greater than 0."""


def share_of(count: int, rank: int, world: int, *, of: str) -> range:
    """Rank's contiguous share of `count` rows (or pairs, or prompts: `of`). Raises `OptionError` if uneven."""
    if count % world:
        raise OptionError(
            f"{count} {of} a step cannot be shared evenly by {world} processes",
            hint=f"set rows_per_step so that the {of} are a multiple of {world}",
        )
    each = count // world
    return range(rank * each, (rank + 1) * each)
