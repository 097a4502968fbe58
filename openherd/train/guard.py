"""Steps that must not change the model: a loss or a gradient that is no number, or a loss that leaps.

Such a step is skipped: weights and moments stay as they are, and training goes on with the next data. Three in a row
mean that the weights themselves are at fault: they are taken back from the last checkpoint, while the data goes on
behind the bad stretch, as Chowdhery et al. 2022 ("PaLM", section 5.1) did by hand. Where that does not help, the
checkpoint has the fault already, and the one before it is taken. The position in the data is the step's number, which
only ever rises.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median

WINDOW = 64
"""Accepted losses whose median a new one is held against."""
ENOUGH = 16
"""Of them before any loss can be called a leap."""
LEAST_MEDIAN = 1.0
"""In nats: below it batches differ by more than a factor without harm, and what is no likelihood is near 0."""
SKIPS_TO_ROLLBACK = 3
ROLLBACKS_TO_GIVE_UP = 3
"""With fewer than ENOUGH good steps between them."""


@dataclass(slots=True)
class Guard:
    """What it remembers; a part of every checkpoint."""

    losses: tuple[float, ...] = ()
    skipped_in_a_row: int = 0
    rollbacks: int = 0  # that did not help yet
    accepted: int = 0  # steps since the last of them

    def fault(self, loss: float, grad_norm: float, spike_factor: float) -> str | None:
        """What is wrong with a step, or None. `spike_factor` 0: a leap of the loss never is."""
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        if not math.isfinite(grad_norm):
            return f"the gradient's norm is {grad_norm}"
        if spike_factor and len(self.losses) >= ENOUGH:
            usual = max(median(self.losses), LEAST_MEDIAN)
            if loss > spike_factor * usual:
                return f"the loss leapt to {loss:.4g}, {loss / usual:.1f} times the usual"
        return None

    def accept(self, loss: float) -> None:
        self.losses = (*self.losses, loss)[-WINDOW:]
        self.skipped_in_a_row = 0
        self.accepted += 1
        if self.accepted >= ENOUGH:
            self.rollbacks = 0

    @property
    def trusts_weights(self) -> bool:
        """Whether the last step was a good one; until then a checkpoint could only replace a better one."""
        return not self.skipped_in_a_row and (self.accepted > 0 or not self.rollbacks)

    def skip(self) -> bool:
        """Count a skipped step; whether it is time to go back to the last checkpoint."""
        self.skipped_in_a_row += 1
        return self.skipped_in_a_row == SKIPS_TO_ROLLBACK

    def rolled_back(self, losses: tuple[float, ...]) -> bool:
        """Go on from a checkpoint that had accepted `losses`; whether there is any use in it."""
        self.losses, self.skipped_in_a_row, self.accepted = losses, 0, 0
        self.rollbacks += 1
        return self.rollbacks < ROLLBACKS_TO_GIVE_UP
