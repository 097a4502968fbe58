"""AdamW over the trained parameters (Loshchilov and Hutter 2019, algorithm 2), from PyTorch.

Weight decay is for matrices: norms and biases have none, nor has the embedding table, of which a step touches few rows
while decay would shrink all. Moments are float32 and are there from the start, so that memory is what it will be and a
checkpoint of step 0 has all of its tensors.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from openherd.train.recipe import OptimizerRecipe

_MOMENTS = ("exp_avg", "exp_avg_sq")


class AdamW:
    """The optimiser of a model that is on its devices, and sharded if it will be."""

    def __init__(self, model: nn.Module, recipe: OptimizerRecipe) -> None:
        self.parameters = {name: value for name, value in model.named_parameters() if value.requires_grad}
        """What is trained, by its canonical name."""
        self._max_grad_norm = recipe.max_grad_norm
        groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
        for name, value in self.parameters.items():
            groups[_decays(name, value)].append(value)
        self._adamw = torch.optim.AdamW(
            [
                {"params": values, "weight_decay": recipe.weight_decay if decays else 0.0}
                for decays, values in groups.items()
                if values
            ],
            betas=(recipe.beta1, recipe.beta2),
            eps=recipe.eps,
            fused=True,
        )
        for value in self.parameters.values():
            step = torch.zeros((), dtype=torch.float32, device=value.device)
            moments = {name: torch.zeros_like(value, memory_format=torch.preserve_format) for name in _MOMENTS}
            self._adamw.state[value] = {"step": step, **moments}

    def moments(self) -> dict[str, Tensor]:
        """First and second moments, as `NAME.exp_avg` and `NAME.exp_avg_sq`."""
        return {
            f"{name}.{moment}": self._adamw.state[value][moment]
            for name, value in self.parameters.items()
            for moment in _MOMENTS
        }

    def set_updates(self, updates: int) -> None:
        """How many updates made the moments; the correction of their bias depends on it."""
        for state in self._adamw.state.values():
            state["step"].fill_(updates)

    def update(self, learning_rate: float, grad_norm: float) -> None:
        """One update from the gradients, scaled down to the recipe's norm if theirs is greater."""
        if self._max_grad_norm and grad_norm > self._max_grad_norm:
            _scale(self.parameters.values(), self._max_grad_norm / grad_norm)
        for group in self._adamw.param_groups:
            group["lr"] = learning_rate
        self._adamw.step()

    def forget_gradients(self) -> None:
        self._adamw.zero_grad(set_to_none=True)


def _decays(name: str, value: Tensor) -> bool:
    return value.ndim > 1 and "embed_tokens" not in name


@torch.no_grad()
def _scale(parameters: Iterable[nn.Parameter], factor: float) -> None:
    torch._foreach_mul_([value.grad for value in parameters if value.grad is not None], factor)
