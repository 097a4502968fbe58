"""A model's parameters divided among processes: FSDP2 over "data", column- and row-wise maps over "tensor".

Source: Zhao et al. 2023, "PyTorch FSDP", in its second form (`fully_shard`: each parameter is a DTensor cut along its
first dimension); Shoeybi et al. 2019, "Megatron-LM", section 3, for the cut of a layer's matrices.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from openherd.train.model.decoder import Decoder
from openherd.train.parallel.tensor_parallel import divide_layers


def shard(model: Decoder, mesh: DeviceMesh, compute_dtype: torch.dtype | None) -> None:
    """See `World.wrap`; `mesh` has the dimensions "data" and "tensor"."""
    if mesh["tensor"].size() > 1:
        divide_layers(model, mesh["tensor"])
    precision = MixedPrecisionPolicy(param_dtype=compute_dtype, reduce_dtype=torch.float32)
    units: list[nn.Module] = [*model.layers, model]
    for unit in units:
        fully_shard(unit, mesh=mesh["data"], mp_policy=precision)
        _sum_gradients(unit)


def _sum_gradients(unit: nn.Module) -> None:
    """By a plain sum over the processes, which every backend has: the loss has been divided already."""
    assert isinstance(unit, FSDPModule)
    unit.set_gradient_divide_factor(1.0)
    unit.set_force_sum_reduction_for_comms(True)
