"""The modules that hold weights, each called by one operation of `TorchOps`: whatever replaces a leaf or hooks it
(LoRA, blocks, sharding) changes that operation and nothing else.

Mixed precision: the dtype of the activations decides. Master weights are float32 (an update of 1e-4 of a weight is
lost in bfloat16's 8 bits) and a leaf casts them to its input's dtype for the product, which accumulates in float32;
norms are computed in float32 and rounded once. That is what `torch.autocast` does, but said in the code: it holds under
`torch.compile`, activation checkpointing and FSDP2's own casting alike, and the residual stream is bfloat16 too.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from openherd.train.model.rms_norm import rms_norm


class Adaptable(nn.Module):
    """A linear map to which `lora.add_lora` may give the two halves of an adapter."""

    lora_A: nn.Linear  # noqa: N815 (named as in PEFT)
    lora_B: nn.Linear  # noqa: N815
    adapter_scale: float = 1.0
    adapter_on: bool = True

    @property
    def has_adapter(self) -> bool:
        return "lora_A" in self._modules

    def adapted(self, x: Tensor, y: Tensor) -> Tensor:
        """y + scale * B (A x) (Hu et al. 2021, eq. 3), y the map's own value for x."""
        if not (self.has_adapter and self.adapter_on):
            return y
        return torch.add(y, self.lora_B(self.lora_A(x)), alpha=self.adapter_scale)


class Linear(Adaptable, nn.Linear):
    """x W^T (+ b) + what an adapter adds. The weights are not set here, but by `initial` or `loading`."""

    def reset_parameters(self) -> None:
        """Nothing: see the class."""

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return self.adapted(x, functional.linear(x, self.weight.to(x.dtype), bias))


class Embedding(nn.Embedding):
    """Rows of the table, as they are stored. Not set here either."""

    def reset_parameters(self) -> None:
        """Nothing: see `Linear`."""


class Norm(nn.Module):
    """The weight of a norm (and its bias), and the norm itself in float32 over the last dimension."""

    def __init__(
        self, size: int, eps: float, *, bias: bool, dtype: torch.dtype, device: torch.device | str | None
    ) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(size, dtype=dtype, device=device))
        self.bias = nn.Parameter(torch.empty(size, dtype=dtype, device=device)) if bias else None

    def rms(self, x: Tensor) -> Tensor:
        return rms_norm(x.float(), self.weight.float(), self.eps).to(x.dtype)

    def layer(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.float()
        return functional.layer_norm(x.float(), self.weight.shape, self.weight.float(), bias, self.eps).to(x.dtype)
