"""T12: 50 steps beside trl's SFTTrainer and DPOTrainer, with full weights and with peft's LoRA, in float32."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from openherd.train.loop import Trainer
from openherd.train.model.decoder import Decoder
from openherd.train.objectives.dpo import Dpo
from openherd.train.objectives.likelihood import Likelihood
from openherd.train.objectives.objective import Objective
from openherd.train.objectives.reference import Reference
from openherd.train.parallel.world import World
from openherd.train.recipe import OptimizerRecipe, Recipe, RunRecipe
from openherd.train.run_log import RunLog
from tests.train.objectives import tiny
from tests.train.objectives.models import pair_rows, sft_rows, tiny_model

EXPECTED = json.loads((Path(__file__).parents[1] / "expected" / "trl.json").read_text())["losses"]
TOLERANCE = 1e-4


@pytest.mark.parametrize("name", ["sft", "sft_lora", "dpo", "dpo_lora"])
def test_t12_losses_are_those_of_trl_and_peft_at_every_step(name: str, tmp_path: Path) -> None:
    lora = name.endswith("lora")
    model = tiny_model(lora=lora)
    objective: Objective = Likelihood(sft_rows())  # type: ignore[arg-type]
    learning_rate = tiny.LORA_LEARNING_RATE if lora else tiny.LEARNING_RATE
    if name.startswith("dpo"):
        objective = Dpo(pair_rows(), Reference.of(model), beta=tiny.DPO_BETA)  # type: ignore[arg-type]
        learning_rate = tiny.LORA_LEARNING_RATE if lora else tiny.LEARNING_RATE / 10
    ours = trained(model, objective, learning_rate, tmp_path / "run")
    assert len(EXPECTED[name]) == tiny.STEPS
    assert EXPECTED[name][-1] < EXPECTED[name][0] - 0.1  # it learnt, so that the steps between are worth comparing
    worst = max(abs(a - b) for a, b in zip(ours, EXPECTED[name], strict=True))
    assert worst <= TOLERANCE


def trained(model: Decoder, objective: Objective, learning_rate: float, out: Path) -> list[float]:
    """The loss of every step of a run."""
    optimizer = OptimizerRecipe(
        learning_rate=learning_rate,
        warmup_steps=1,
        schedule="constant",
        weight_decay=tiny.WEIGHT_DECAY,
        beta1=tiny.BETAS[0],
        beta2=tiny.BETAS[1],
        eps=tiny.EPS,
        max_grad_norm=tiny.MAX_GRAD_NORM,
    )
    run = RunRecipe(out=out, steps=tiny.STEPS, micro_rows=2, eval_every=100, sample_every=100, checkpoint_every=100)
    losses: list[float] = []
    with RunLog(None) as log:
        Trainer(
            model,
            objective,
            Recipe(optimizer=optimizer, run=run),
            World.single(),
            log,
            progress=lambda step, metrics: losses.append(metrics["loss"]),
        ).run()
    return losses
