"""The processes that train one model together, and what they say to each other.

One process on its own is a world of size one, in which every sum is the number itself: the loop is written once.
Processes that see different rows are counted by `rank` and `size`; those of one tensor-parallel group share their
rows, and so their rank. Under torchrun each process finds its place in the environment.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, overload

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from openherd.errors import OptionError
from openherd.train.saved_tensors import FILE, read_tensors, write_tensors

if TYPE_CHECKING:
    from types import TracebackType

    from openherd.train.model.decoder import Decoder

_PATIENCE = timedelta(hours=2)
"""How long processes wait for each other: the main one alone reads what a large checkpoint holds, slow disks or not."""


class World:
    """This process's place among those that train, its device, and their common arithmetic.

    Made by `single` or `from_environment`; a context manager that leaves the process group at its end.
    """

    def __init__(self, device: torch.device, mesh: DeviceMesh | None = None) -> None:
        """`mesh` has the dimensions "data" and "tensor"; None: this process is alone."""
        self.device = device
        self._mesh = mesh

    @classmethod
    def single(cls, device: torch.device | str = "cpu") -> World:
        """A world of this process alone."""
        return cls(torch.device(device))

    @classmethod
    def from_environment(cls, device: str = "auto", *, tensor_parallel: int = 1) -> World:
        """The world that torchrun (or Ray, by the same variables) started this process in, or a world of one.

        `device` is "cpu", "cuda" or "auto" (a GPU where there is one); with several processes each takes the GPU of
        its LOCAL_RANK. Raises OptionError where that device is missing or `tensor_parallel` does not divide the number
        of processes.
        """
        size = int(os.environ.get("WORLD_SIZE", "1"))
        if tensor_parallel < 1 or size % tensor_parallel:
            raise OptionError(
                f"tensor_parallel must divide the number of processes, {size}, and {tensor_parallel} does not",
                hint="start more processes: torchrun --nproc-per-node N",
            )
        kind = _device_kind(device)
        if size == 1:
            return cls.single(kind)
        local = torch.device(kind)
        if kind == "cuda":
            local = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
            torch.cuda.set_device(local)
        dist.init_process_group("nccl" if kind == "cuda" else "gloo", timeout=_PATIENCE)
        shape = (size // tensor_parallel, tensor_parallel)
        return cls(local, init_device_mesh(kind, shape, mesh_dim_names=("data", "tensor")))

    @property
    def rank(self) -> int:
        """Which share of each step's rows is this process's; from 0."""
        return 0 if self._mesh is None else int(self._mesh["data"].get_local_rank())

    @property
    def size(self) -> int:
        """Into how many shares the rows are divided."""
        return 1 if self._mesh is None else int(self._mesh["data"].size())

    @property
    def tensor_parallel(self) -> int:
        """How many processes share one share of rows, each with a part of every matrix."""
        return 1 if self._mesh is None else int(self._mesh["tensor"].size())

    @property
    def num_processes(self) -> int:
        return self.size * self.tensor_parallel

    @property
    def num_local_processes(self) -> int:
        """Of them, those on this machine, by whose number its cores and memory are divided."""
        return 1 if self._mesh is None else int(os.environ.get("LOCAL_WORLD_SIZE", self.num_processes))

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that logs and writes what all have in common."""
        return self._mesh is None or dist.get_rank() == 0

    @overload
    def sum(self, x: float) -> float: ...
    @overload
    def sum(self, x: Tensor) -> Tensor: ...
    def sum(self, x: float | Tensor) -> float | Tensor:
        """The sum of x over all shares of rows, the same bits in every process. A number is summed in float64."""
        if self._mesh is None:
            return x
        if not isinstance(x, Tensor):
            return float(self.sum(torch.tensor(x, dtype=torch.float64, device=self.device)))
        total = x.detach().clone()
        dist.all_reduce(total, group=self._mesh["data"].get_group())
        return total

    def any(self, flag: bool) -> bool:
        """Whether any process says so: how all agree to stop on a signal that one received."""
        if self._mesh is None:
            return flag
        vote = torch.tensor(int(flag), device=self.device)
        dist.all_reduce(vote, op=dist.ReduceOp.MAX)
        return bool(vote)

    def barrier(self) -> None:
        """Wait until every process is here."""
        if self._mesh is not None:
            dist.barrier()

    def wrap(self, model: Decoder, *, compute_dtype: torch.dtype | None = None) -> Decoder:
        """Put the model on this world's devices; with several, each process keeps its shards only.

        A model on the device "meta" gets memory for its shards, to be filled by `initialise` or `load_weights`, so that
        no process ever holds all of a large one. Each layer and the root become units of FSDP2, gathered one at a time;
        before that, the linear maps are divided among a tensor-parallel group. Gradients are summed, not averaged: the
        loss is divided by the step's whole weight already. `compute_dtype`: gather weights in this type; gradients are
        reduced in float32. Make the optimiser afterwards, of the wrapped model's parameters.
        """
        is_empty = any(parameter.is_meta for parameter in model.parameters())
        if not is_empty:
            model.to(self.device)
        if self._mesh is not None:
            from openherd.train.parallel.sharding import shard

            shard(model, self._mesh, compute_dtype)
        return model.to_empty(device=self.device) if is_empty else model

    def gradient_norm(self, parameters: Iterable[nn.Parameter]) -> float:
        """The Euclidean norm of all gradients together, summed over all shards; call it everywhere."""
        from openherd.train.parallel.gradients import sum_of_squares

        total = sum_of_squares(parameters, self.device)
        if self._mesh is not None:
            dist.all_reduce(total)
        return float(total) ** 0.5

    def save_tensors(self, folder: Path, tensors: Mapping[str, Tensor]) -> None:
        """Write named tensors, sharded or whole, as safetensors files into `folder`, which is made; call it everywhere.

        Each process writes and syncs what it holds, and a world of any size reads it. Raises OutputError in every
        process when one cannot write.
        """
        if self.num_processes == 1:
            write_tensors(folder, tensors)
            return
        from openherd.train.parallel.sharded_files import save

        save(self, folder, tensors)

    def load_tensors(self, folder: Path, into: Mapping[str, Tensor]) -> None:
        """Fill the tensors of `into`, sharded or whole, from what `save_tensors` wrote in a world of any size.

        Raises FormatError when a name is missing, a shape or type differs, or a file is no sound safetensors file.
        Tensors on the disk that `into` does not name are not read.
        """
        if self.num_processes == 1 and (folder / FILE).exists():
            read_tensors(folder, into)
            return
        from openherd.train.parallel.sharded_files import load

        load(self, folder, into)

    def close(self) -> None:
        """Leave the process group; the others must do so too."""
        if self._mesh is not None:
            dist.destroy_process_group()
            self._mesh = None

    def __enter__(self) -> World:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _device_kind(device: str) -> str:
    if device not in ("cpu", "cuda", "auto"):
        raise OptionError(f"device must be cpu, cuda or auto, not {device!r}")
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise OptionError(
            "device is cuda, and this machine (or this build of torch) has no GPU",
            hint="try: --device cpu, or install torch with CUDA",
        )
    return device
