"""DPO against its closed form and finite differences; pairs stay pairs whatever the micro-batches are."""

from __future__ import annotations

import math

import pytest
import torch

from openherd.errors import OptionError
from openherd.train.batch import Batch
from openherd.train.loss import token_logprobs
from openherd.train.objectives.dpo import Dpo, preference_loss
from openherd.train.objectives.reference import Reference
from tests.train.objectives import tiny
from tests.train.objectives.models import pair_rows, place, tiny_model
from tests.train.objectives.steps import losses


def dpo(model: object, **settings: float) -> Dpo:
    return Dpo(pair_rows(), Reference.of(model), **settings)  # type: ignore[arg-type]


def answer_logprob(model: object, prompt: list[int], answer: list[int]) -> float:
    """log p(answer | prompt) by the whole softmax over logits, one token at a time."""
    ids = prompt + answer
    batch = Batch.from_arrays(place([(ids, len(prompt))]))
    with torch.no_grad():
        logits = model.logits(model(batch))[0].double()  # type: ignore[operator, attr-defined]
    table = logits - logits.exp().sum(-1, keepdim=True).log()
    return sum(float(table[at - 1, ids[at]]) for at in range(len(prompt), len(ids)))


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_loss_is_equation_7_of_rafailov(lora: bool, label_smoothing: float) -> None:
    start, model, beta = tiny_model(lora=lora), tiny_model(lora=lora), 0.3
    objective = dpo(model, beta=beta, label_smoothing=label_smoothing)
    with torch.no_grad():  # leave the reference, on the trained weights only
        for number, parameter in enumerate(p for p in model.parameters() if p.requires_grad):
            parameter += 0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
    expected, margins = 0.0, []
    for prompt, chosen, rejected in tiny.pairs()[:2]:
        ratios = [answer_logprob(model, prompt, end) - answer_logprob(start, prompt, end) for end in (chosen, rejected)]
        margin = beta * (ratios[0] - ratios[1])
        margins.append(margin)
        clean, flipped = math.log1p(math.exp(-margin)), math.log1p(math.exp(margin))
        expected += ((1 - label_smoothing) * clean + label_smoothing * flipped) / 2
    (batch,) = objective.micro_batches(0, 0, 1, 8)
    step = objective.loss(model, batch, objective.weight(batch))
    assert max(map(abs, margins)) > 1e-3  # else reference and policy would be the same and nothing was tried
    assert float(step.loss.detach()) == pytest.approx(expected, abs=2e-6)
    assert float(step.metrics["margin"]) == pytest.approx(sum(margins), abs=1e-5)
    assert float(step.metrics["accuracy"]) == sum(margin > 0 for margin in margins)


def test_gradient_of_the_loss_agrees_with_finite_differences() -> None:
    margins = torch.tensor([-1.5, 0.0, 0.4, 3.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda m: preference_loss(m, 0.1), margins)
    assert torch.autograd.gradcheck(lambda m: preference_loss(m), margins)


def test_an_untrained_model_has_loss_log_2_and_prefers_nothing() -> None:
    model = tiny_model(lora=True)
    ((loss, metrics),) = losses(model, dpo(model), 0.0, steps=1)
    assert loss == pytest.approx(math.log(2), abs=1e-7)
    assert metrics == {"accuracy": 0.0, "margin": 0.0, "reward_chosen": 0.0, "reward_rejected": 0.0}


def test_with_lora_the_reference_is_the_model_without_it_and_gets_no_gradient() -> None:
    model = tiny_model(lora=True)
    reference = Reference.of(model)
    (batch,) = dpo(model).micro_batches(0, 0, 1, 8)
    before = reference.token_logprobs(model, batch)
    assert reference._frozen is None
    assert not before.requires_grad
    list(losses(model, dpo(model), 1e-2, steps=3))
    after = token_logprobs(model, model(batch), batch)
    assert torch.equal(reference.token_logprobs(model, batch), before)
    assert not torch.allclose(after, before)


def test_with_full_weights_the_reference_is_a_copy_that_stays() -> None:
    model = tiny_model()
    objective = dpo(model)
    (batch,) = objective.micro_batches(0, 0, 1, 8)
    reference = objective._reference
    before = reference.token_logprobs(model, batch)
    list(losses(model, objective, 1e-3, steps=3))
    assert torch.equal(reference.token_logprobs(model, batch), before)
    assert reference._frozen is not None
    assert all(not parameter.requires_grad for parameter in reference._frozen.parameters())


@pytest.mark.parametrize("micro_rows", [1, 2, 3, 64])
def test_a_pair_is_never_cut_and_loss_does_not_depend_on_micro_batches(micro_rows: int) -> None:
    model = tiny_model(lora=True)
    objective = dpo(model)
    batches = objective.micro_batches(0, 0, 1, micro_rows)
    assert all(len(batch.token_ids) % 2 == 0 for batch in batches)
    assert sum(map(objective.weight, batches)) == tiny.PAIRS_PER_STEP
    total = sum(map(objective.weight, batches))
    loss = sum(float(objective.loss(model, batch, total).loss.detach()) for batch in batches)
    assert loss == pytest.approx(math.log(2), abs=1e-6)


def test_ranks_share_pairs_and_refuse_what_cannot_be_shared() -> None:
    objective = dpo(tiny_model(lora=True))
    whole = objective.micro_batches(0, 0, 1, 64)[0].token_ids
    shares = [objective.micro_batches(0, rank, 2, 64)[0].token_ids for rank in (0, 1)]
    widths = [share.shape[1] for share in shares]
    assert torch.equal(whole[:2, : widths[0]], shares[0])
    assert torch.equal(whole[2:, : widths[1]], shares[1])
    with pytest.raises(OptionError, match="2 pairs a step cannot be shared evenly by 3"):
        objective.micro_batches(0, 0, 3, 64)


@pytest.mark.parametrize(
    ("settings", "key"),
    [({"beta": 0.0}, "beta"), ({"beta": math.nan}, "beta"), ({"label_smoothing": 0.5}, "label_smoothing")],
)
def test_settings_out_of_range_are_refused_by_name(settings: dict[str, float], key: str) -> None:
    with pytest.raises(OptionError, match=f"dpo.{key} must be"):
        dpo(tiny_model(lora=True), **settings)
