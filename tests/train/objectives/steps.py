"""Steps of training without the loop around them."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from openherd.train.model.decoder import Decoder
from openherd.train.objectives.objective import Objective
from tests.train.objectives import tiny


def losses(
    model: Decoder, objective: Objective, learning_rate: float, steps: int = tiny.STEPS, micro_rows: int = 2
) -> Iterator[tuple[float, dict[str, float]]]:
    """Each step's loss and the means of its metrics, as the loop has them: sums over micro-batches by total weight."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in parameters if parameter.ndim > 1]
    others = [parameter for parameter in parameters if parameter.ndim == 1]
    groups = [
        {"params": matrices, "weight_decay": tiny.WEIGHT_DECAY},
        {"params": others, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW([g for g in groups if g["params"]], lr=learning_rate, betas=tiny.BETAS, eps=tiny.EPS)
    for step in range(steps):
        batches = objective.micro_batches(step, 0, 1, micro_rows)
        total = sum(map(objective.weight, batches))
        loss, means = 0.0, dict[str, float]()
        for batch in batches:
            part = objective.loss(model, batch, total)
            part.loss.backward()
            loss += float(part.loss.detach())
            for name, value in part.metrics.items():
                means[name] = means.get(name, 0.0) + float(value) / total
        torch.nn.utils.clip_grad_norm_(parameters, tiny.MAX_GRAD_NORM)
        optimizer.step()
        optimizer.zero_grad()
        yield loss, means
