"""Setting a parameter to given values, also one of which this process holds a shard."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


@torch.no_grad()
def fill(parameter: Tensor, full: Tensor) -> None:
    """Set all of `parameter` to `full`, of its shape, on whatever device and in whatever type either is.

    Of a DTensor each process keeps its part of the `full` that it has made itself; nothing is sent.
    """
    if type(parameter.data) is Tensor:
        parameter.copy_(full)
        return
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(parameter, DTensor)
    local = full.to(parameter.device, parameter.dtype)
    parameter.copy_(distribute_tensor(local, parameter.device_mesh, parameter.placements, src_data_rank=None))


def whole(parameter: Tensor) -> Tensor:
    """All of a parameter, on every process: of a DTensor a collective call."""
    data = parameter.detach()
    gather = getattr(data, "full_tensor", None)
    return data if gather is None else gather()


def generator(seed: int, name: str) -> torch.Generator:
    """Random numbers of one tensor: from the seed and its name alone, whatever else is made before it or elsewhere."""
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest[:8], "little") >> 1)
