"""Direct preference optimisation (Rafailov et al. 2023, "Direct Preference Optimization", eq. 7).

    L = -log sigmoid(beta (log pi(w|x)/ref(w|x) - log pi(l|x)/ref(l|x)))    w the chosen, l the rejected answer

with log-probabilities summed over an answer's tokens. `label_smoothing` e is the rate at which pairs are thought to be
labelled the wrong way round: L becomes (1 - e) L(w, l) + e L(l, w) (Mitchell 2023, "A note on DPO with noisy
preferences"). Not covered: other losses on pairs (IPO, hinge), and lengths taken out of the log-probabilities.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn.functional import logsigmoid

from openherd.errors import OptionError
from openherd.train.batch import Batch
from openherd.train.loss import token_logprobs
from openherd.train.objectives.objective import StepLoss, share_of

if TYPE_CHECKING:
    from openherd.train.model.decoder import Decoder
    from openherd.train.objectives.reference import Reference
    from openherd.train.order import PairOrder


class Dpo:
    """Rows 2i and 2i + 1 of a batch are the chosen and the rejected end of a pair, one document a row."""

    name = "dpo"

    def __init__(
        self, order: PairOrder, reference: Reference, *, beta: float = 0.1, label_smoothing: float = 0.0
    ) -> None:
        """Raises `OptionError`. `beta`: how dear it is to leave the reference."""
        if not (math.isfinite(beta) and beta > 0):
            raise OptionError(f"dpo.beta must be a number greater than 0, not {beta!r}")
        if not 0 <= label_smoothing < 0.5:
            raise OptionError(f"dpo.label_smoothing must be a number in [0, 0.5), not {label_smoothing!r}")
        self._order, self._reference = order, reference
        self._beta, self._label_smoothing = beta, label_smoothing

    @property
    def fingerprint(self) -> str:
        return f"{self.name}:beta={self._beta!r}:label_smoothing={self._label_smoothing!r}:{self._order.fingerprint}"

    def micro_batches(self, step: int, rank: int, world: int, micro_rows: int) -> list[Batch]:
        """A pair is never cut: a micro-batch has `micro_rows` rounded down to pairs, at least one."""
        rows = self._order.rows(step)
        pairs, each = share_of(len(rows.token_ids) // 2, rank, world, of="pairs"), max(1, micro_rows // 2)
        return [
            Batch.from_arrays(rows.part(2 * first, 2 * min(first + each, pairs.stop)).trimmed())
            for first in range(pairs.start, pairs.stop, each)
        ]

    def weight(self, batch: Batch) -> float:
        """Pairs."""
        return len(batch.token_ids) / 2

    def loss(self, model: Decoder, batch: Batch, total: float) -> StepLoss:
        reference = self._reference.token_logprobs(model, batch)
        policy = token_logprobs(model, model(batch), batch)
        rewards = self._beta * (policy - reference).sum(1)  # [B], implicit (Rafailov et al. 2023, section 5)
        chosen, rejected = rewards[0::2], rewards[1::2]  # [P]
        losses = preference_loss(chosen - rejected, self._label_smoothing)
        return StepLoss(losses.sum() / total, preference_metrics(chosen.detach(), rejected.detach()))


def preference_loss(margins: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """[P] losses of [P] margins, in units of beta."""
    losses = -(1 - label_smoothing) * logsigmoid(margins)
    return losses - label_smoothing * logsigmoid(-margins) if label_smoothing else losses


def preference_metrics(chosen: Tensor, rejected: Tensor) -> dict[str, Tensor]:
    """Sums over pairs; a tie counts as wrong, so that an untrained model has an accuracy of 0."""
    return {
        "accuracy": (chosen > rejected).sum().float(),
        "margin": (chosen - rejected).sum(),
        "reward_chosen": chosen.sum(),
        "reward_rejected": rejected.sum(),
    }
