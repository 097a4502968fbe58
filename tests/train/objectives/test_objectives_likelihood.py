"""Maximum likelihood: the mean over learnt tokens, whatever the layout of the rows."""

from __future__ import annotations

import pytest
import torch

from openherd.errors import OptionError
from openherd.train.batch import Batch
from openherd.train.objectives.likelihood import Likelihood
from tests.train.objectives import tiny
from tests.train.objectives.models import Rows, place, sft_rows, tiny_model
from tests.train.objectives.test_objectives_dpo import answer_logprob


def test_loss_is_the_mean_of_learnt_tokens_and_of_no_others() -> None:
    model, rows = tiny_model(), tiny.sft_rows()[: tiny.ROWS_PER_STEP]
    objective = Likelihood(sft_rows())  # type: ignore[arg-type]
    (batch,) = objective.micro_batches(0, 0, 1, 64)
    total = objective.weight(batch)
    assert total == sum(len(ids) - given for ids, given in rows)
    expected = -sum(answer_logprob(model, ids[:given], ids[given:]) for ids, given in rows) / total
    assert float(objective.loss(model, batch, total).loss.detach()) == pytest.approx(expected, abs=2e-6)


def test_what_is_not_learnt_changes_no_loss_but_through_the_context() -> None:
    """A document beside it, of which nothing is learnt, may be anything."""
    model, objective = tiny_model(), Likelihood(sft_rows())  # type: ignore[arg-type]
    ids, given = tiny.sft_rows()[0]
    found = []
    for other in (3, 9):
        batch = Batch.from_arrays(place([(ids, given), ([other, *ids[1:4]], 4)]))
        assert objective.weight(batch) == len(ids) - given
        found.append(float(objective.loss(model, batch, 1.0).loss.detach()))
    assert found[0] == found[1]


def test_documents_packed_in_a_row_give_the_sum_of_documents_alone() -> None:
    model, rows = tiny_model(), tiny.sft_rows()[:3]
    objective = Likelihood(sft_rows())  # type: ignore[arg-type]

    def loss(batch: Batch) -> float:
        return float(objective.loss(model, batch, 1.0).loss.detach())

    alone = [loss(Batch.from_arrays(place([row]))) for row in rows]
    assert loss(Batch.from_arrays(place(rows))) == pytest.approx(sum(alone), rel=1e-6)
    packed = Batch.from_arrays(place(rows, packed=True))
    assert packed.token_ids.shape[0] == 1
    assert loss(packed) == pytest.approx(sum(alone), rel=1e-6)


@pytest.mark.parametrize(("world", "micro_rows"), [(1, 1), (1, 3), (2, 1), (4, 4)])
def test_t9_gradients_do_not_depend_on_ranks_and_micro_batches(world: int, micro_rows: int) -> None:
    model, objective = tiny_model(), Likelihood(sft_rows())  # type: ignore[arg-type]

    def gradients(world: int, micro_rows: int) -> torch.Tensor:
        model.zero_grad()
        batches = [b for rank in range(world) for b in objective.micro_batches(3, rank, world, micro_rows)]
        total = sum(map(objective.weight, batches))
        for batch in batches:
            objective.loss(model, batch, total).loss.backward()
        return torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None])

    whole = gradients(1, 64)
    assert float(whole.abs().max()) > 1e-3
    assert float((gradients(world, micro_rows) - whole).abs().max()) <= 1e-6


def test_ranks_that_cannot_share_the_rows_are_told_which_key_to_change() -> None:
    objective = Likelihood(Rows(tiny.sft_rows(), 4))  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="rows_per_step"):
        objective.micro_batches(0, 0, 3, 4)
