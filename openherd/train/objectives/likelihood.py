"""Maximum likelihood: the mean over learnt tokens of -log p(token | tokens before it). Pretraining and SFT are this.

They differ in their data only: in text every token is learnt, in a conversation the assistant's turns. The mean is
over the whole step's learnt tokens, so a long document weighs more than a short one (unlike a mean of means).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from openherd.train.batch import Batch
from openherd.train.loss import nll_sum
from openherd.train.objectives.objective import StepLoss, share_of

if TYPE_CHECKING:
    from openherd.train.model.decoder import Decoder
    from openherd.train.order import DataOrder


class Likelihood:
    name = "likelihood"

    def __init__(self, order: DataOrder) -> None:
        self._order = order

    @property
    def fingerprint(self) -> str:
        return f"{self.name}:{self._order.fingerprint}"

    def micro_batches(self, step: int, rank: int, world: int, micro_rows: int) -> list[Batch]:
        rows = self._order.rows(step)
        share = share_of(len(rows.token_ids), rank, world, of="rows")
        return [
            Batch.from_arrays(rows.part(start, min(start + micro_rows, share.stop)).trimmed())
            for start in range(share.start, share.stop, micro_rows)
        ]

    def weight(self, batch: Batch) -> float:
        return batch.num_learnt

    def loss(self, model: Decoder, batch: Batch, total: float) -> StepLoss:
        return StepLoss(nll_sum(model, model(batch), batch) / total)
