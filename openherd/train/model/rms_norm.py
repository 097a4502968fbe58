"""RMS normalisation (Zhang and Sennrich 2019, "Root Mean Square Layer Normalization", eq. 4) and its gradient.

    y = w n,  n = r x,  r = 1 / sqrt(mean(x^2) + eps)
    dw = sum over rows of g n,  dx = r (g w - n mean(g w n))

PyTorch has a kernel of it for GPUs alone; on CPUs its own is a dozen passes over the values, and this takes half of
that time, which is 6 % of a step of a small model.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Over the last dimension of x, [..., D] float32, times weight [D] float32."""
    if x.device.type != "cpu" or torch.compiler.is_compiling() or type(x) is not Tensor:  # the last: a sharded one
        return functional.rms_norm(x, weight.shape, weight, eps)
    return cast(Tensor, _RmsNorm.apply(x, weight, eps))


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        norms = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        scales = norms.square_().div_(x.shape[-1]).add_(eps).rsqrt_()  # [..., 1]
        normal = x * scales
        ctx.save_for_backward(normal, scales, weight)
        return normal * weight

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        (grad,), (normal, scales, weight) = grads, ctx.saved_tensors
        products = grad * normal
        means = (products @ weight).unsqueeze(-1).div_(normal.shape[-1])  # [..., 1]
        of_x = (grad * weight).addcmul_(normal, means, value=-1).mul_(scales)
        return of_x, products.flatten(0, -2).sum(0), None
