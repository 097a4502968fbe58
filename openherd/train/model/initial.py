"""New weights.

Source: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.3, and its code: normal
with deviation 0.02; the maps that add to the residual stream divided by sqrt(2 n_layers), so that its variance does not
grow with depth. Norms begin as the identity, biases at 0.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from openherd.train.model.decoder import Decoder
from openherd.train.model.filling import fill, generator

DEVIATION = 0.02
_TO_RESIDUAL = ("o_proj.weight", "down_proj.weight", "w2.weight")


def initialise(model: Decoder, seed: int) -> None:
    """Set every parameter: a pure function of the seed and the parameter's name, so equal on any number of processes.

    The model may be sharded; it must no longer be on the device "meta".
    """
    for name, parameter in model.named_parameters():
        fill(parameter, _first_values(name, parameter.shape, model.config.n_layers, seed))


def _first_values(name: str, shape: torch.Size, n_layers: int, seed: int) -> Tensor:
    if name.endswith(".bias"):
        return torch.zeros(shape)
    if len(shape) == 1:  # a norm
        return torch.ones(shape)
    deviation = DEVIATION / math.sqrt(2 * n_layers) if name.endswith(_TO_RESIDUAL) else DEVIATION
    return torch.randn(shape, generator=generator(seed, name)) * deviation
