"""T12: 50 steps beside trl's SFTTrainer and DPOTrainer, with full weights and with peft's LoRA, in float32."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from openherd.train.objectives.dpo import Dpo
from openherd.train.objectives.likelihood import Likelihood
from openherd.train.objectives.objective import Objective
from openherd.train.objectives.reference import Reference
from tests.train.objectives import tiny
from tests.train.objectives.models import pair_rows, sft_rows, tiny_model
from tests.train.objectives.steps import losses

EXPECTED = json.loads((Path(__file__).parents[1] / "expected" / "trl.json").read_text())["losses"]
TOLERANCE = 1e-4


@pytest.mark.parametrize("name", ["sft", "sft_lora", "dpo", "dpo_lora"])
def test_t12_losses_are_those_of_trl_and_peft_at_every_step(name: str) -> None:
    lora = name.endswith("lora")
    model = tiny_model(lora=lora)
    objective: Objective = Likelihood(sft_rows())  # type: ignore[arg-type]
    learning_rate = tiny.LORA_LEARNING_RATE if lora else tiny.LEARNING_RATE
    if name.startswith("dpo"):
        objective = Dpo(pair_rows(), Reference.of(model), beta=tiny.DPO_BETA)  # type: ignore[arg-type]
        learning_rate = tiny.LORA_LEARNING_RATE if lora else tiny.LEARNING_RATE / 10
    ours = [loss for loss, _ in losses(model, objective, learning_rate)]
    assert len(EXPECTED[name]) == tiny.STEPS
    assert EXPECTED[name][-1] < EXPECTED[name][0] - 0.1  # it learnt, so that the steps between are worth comparing
    worst = max(abs(a - b) for a, b in zip(ours, EXPECTED[name], strict=True))
    assert worst <= TOLERANCE
