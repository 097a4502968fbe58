"""What one step is: the same gradients however it is cut, the learning rate, and which weights decay."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from openherd.train.model.decoder import Decoder
from openherd.train.optimizer import AdamW
from openherd.train.recipe import OptimizerRecipe
from openherd.train.schedule import learning_rate
from tests.train.loop.small_run import CONFIG, ROWS, recipe_of, trainer


def test_t9_accumulation_is_exact(data: Path, tmp_path: Path) -> None:
    """1x8 = 2x4 = 8x1, and 3+3+2: rows learn 24 tokens down to a few, and the step's last micro-batch may be short."""
    found = {}
    for micro_rows in (8, 4, 3, 1):
        made = trainer(recipe_of(tmp_path, data, micro_rows=micro_rows))
        made.objective.loss = super(type(made.objective), made.objective).loss  # type: ignore[method-assign, misc]
        batches = made.objective.micro_batches(0, 0, 1, micro_rows)
        assert len(batches) == -(-ROWS // micro_rows)
        numbers = made.gradients(0)
        grads = {name: value.grad.clone() for name, value in made.adamw.parameters.items() if value.grad is not None}
        found[micro_rows] = numbers, grads
        if micro_rows == 1:
            learnt = [batch.num_learnt for batch in batches]
            assert max(learnt) > 1.2 * min(learnt)  # ragged
    whole, grads = found[8]
    assert len(grads) == len(made.adamw.parameters)
    for numbers, others in found.values():
        assert abs(numbers.loss - whole.loss) <= 1e-6
        assert abs(numbers.norm - whole.norm) <= 1e-6
        assert (numbers.weight, numbers.tokens) == (whole.weight, whole.tokens)
        for name, grad in grads.items():
            assert (grad - others[name]).abs().max() <= 1e-6, name


def test_clipping_scales_all_gradients_alike() -> None:
    recipe = OptimizerRecipe(learning_rate=1.0, max_grad_norm=0.5, weight_decay=0.0)
    model = torch.nn.Linear(3, 2)
    optimizer = AdamW(model, recipe)
    for value in model.parameters():
        value.grad = torch.full_like(value, 2.0)
    optimizer.update(0.0, grad_norm=8**0.5 * 2)
    norm = sum(float(value.grad.square().sum()) for value in model.parameters() if value.grad is not None) ** 0.5
    assert norm == pytest.approx(0.5, rel=1e-6)


def test_matrices_decay_and_norms_and_embeddings_do_not() -> None:
    model = Decoder(CONFIG)
    for value in model.parameters():
        torch.nn.init.ones_(value)
        value.grad = torch.zeros_like(value)
    AdamW(model, OptimizerRecipe(weight_decay=0.5)).update(0.1, 0.0)
    changed = {name for name, value in model.named_parameters() if not bool((value == 1).all())}
    assert changed == {name for name, value in model.named_parameters() if value.ndim > 1 and "embed" not in name}
    assert changed


def test_updates_are_those_of_adamw_as_published() -> None:
    """Loshchilov and Hutter 2019, algorithm 2, in float64, over a few steps that resume in the middle."""
    recipe = OptimizerRecipe(weight_decay=0.3, max_grad_norm=0.0)
    weight = torch.nn.Parameter(torch.tensor([[1.0, -2.0]]))
    model = torch.nn.Module()
    model.register_parameter("w", weight)
    optimizer = AdamW(model, recipe)
    x, m, v = weight.detach().double(), torch.zeros(1, 2).double(), torch.zeros(1, 2).double()
    for step in range(1, 6):
        if step == 3:
            moments = {name: value.clone() for name, value in optimizer.moments().items()}
            optimizer = AdamW(model, recipe)
            for name, value in optimizer.moments().items():
                value.copy_(moments[name])
            optimizer.set_updates(step - 1)
        grad = torch.tensor([[0.1 * step, -0.7]])
        weight.grad = grad.clone()
        optimizer.update(0.01, 0.0)
        m = recipe.beta1 * m + (1 - recipe.beta1) * grad.double()
        v = recipe.beta2 * v + (1 - recipe.beta2) * grad.double().square()
        corrected = (v / (1 - recipe.beta2**step)).sqrt() + recipe.eps
        x = x - 0.01 * (m / (1 - recipe.beta1**step) / corrected + recipe.weight_decay * x)
        assert torch.allclose(weight.detach().double(), x, rtol=1e-6, atol=1e-7)


def test_schedules() -> None:
    def rates(schedule: str, steps: int = 100) -> list[float]:
        recipe = OptimizerRecipe(learning_rate=2.0, warmup_steps=10, final_share=0.1, schedule=schedule)  # type: ignore[arg-type]
        return [learning_rate(recipe, step, steps) for step in range(steps)]

    for schedule in ("cosine", "wsd", "constant"):
        assert rates(schedule)[:10] == pytest.approx([0.2 * (step + 1) for step in range(10)])
        assert max(rates(schedule)) == 2.0
    assert rates("constant")[10:] == [2.0] * 90
    assert rates("cosine")[54] == pytest.approx(1.1)  # half of the way
    assert rates("cosine")[99] == pytest.approx(0.2)
    assert rates("wsd")[:80] == rates("constant")[:80]
    assert rates("wsd")[84] == pytest.approx(0.2 + 1.8 * 0.5)  # a quarter of the fall: 1 - sqrt(1/4)
    assert rates("wsd")[99] == pytest.approx(0.2)
    for schedule in ("cosine", "wsd"):
        assert rates(schedule)[9:] == sorted(rates(schedule)[9:], reverse=True)
        assert min(rates(schedule, steps=5)) > 0  # a run that ends before its warm-up does
