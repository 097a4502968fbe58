"""The part of the gradients' norm that one process adds to the sum over all of them."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


def sum_of_squares(parameters: Iterable[nn.Parameter], device: torch.device) -> Tensor:
    """This process's share of the sum of squared gradients, in float64: shares of all processes add up to the whole.

    A gradient that n processes hold alike counts as a part in n in each of them.
    """
    grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not grads:
        return torch.zeros((), dtype=torch.float64, device=device)
    norms = torch.stack([torch.linalg.vector_norm(local_part(grad), dtype=torch.float32) for grad in grads])
    copies = torch.tensor([num_copies(grad) for grad in grads], dtype=torch.float64, device=device)
    return (norms.double().square() / copies).sum()


def local_part(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor, sharded or whole."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def num_copies(tensor: Tensor) -> int:
    """How many processes hold each element of `tensor`."""
    if not isinstance(tensor, DTensor):
        return dist.get_world_size() if dist.is_initialized() else 1
    mesh = tensor.device_mesh
    # Not `is_shard`: a tensor that both meshes cut along one dimension has a strided shard, which says no to that.
    shards = math.prod(mesh.size(dim) for dim, p in enumerate(tensor.placements) if not p.is_replicate())
    return dist.get_world_size() // shards
