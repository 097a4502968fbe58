"""Named tensors of one process as one safetensors file in a folder, written tensor by tensor without a copy of all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from openherd.checkpoints.gguf_writer import PlannedTensor
from openherd.checkpoints.new_file import fill_file
from openherd.checkpoints.safetensors import read_safetensors
from openherd.checkpoints.safetensors_writer import FILE_METADATA, lay_out
from openherd.errors import FormatError
from openherd.quant.types import BLOCK_TYPES
from openherd.train.model.float_types import TYPE_NAMES

FILE = "tensors.safetensors"
_CHUNK = 1 << 22


def write_tensors(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write and sync FILE in `folder`, which is made. Raises OutputError; ValueError for a type that is no float."""
    folder.mkdir(exist_ok=True)
    laid = lay_out([_planned(name, tensor) for name, tensor in tensors.items()], FILE_METADATA)
    fill_file(folder / FILE, laid.head, laid.pieces, size=laid.size)


def read_tensors(folder: Path, into: Mapping[str, Tensor]) -> None:
    """Fill each tensor of `into` from FILE. Raises FormatError for one that is missing or has another shape or type."""
    file = read_safetensors(folder / FILE)
    for name, tensor in into.items():
        info = file.tensors.get(name)
        if info is None:
            raise FormatError(f"{file.path}: the tensor {name} is missing")
        if info.shape != tuple(tensor.shape) or info.type.name != TYPE_NAMES.get(tensor.dtype):
            raise FormatError(
                f"{file.path}: {name} is {info.type.name} {list(info.shape)}, and "
                f"{TYPE_NAMES.get(tensor.dtype)} {list(tensor.shape)} is needed"
            )
        raw = torch.from_numpy(np.array(info.rows(file.data)).reshape(-1))
        tensor.detach().copy_(raw.view(tensor.dtype).view(tensor.shape))


def _planned(name: str, tensor: Tensor) -> PlannedTensor:
    if tensor.dtype not in TYPE_NAMES:
        raise ValueError(f"{name}: a tensor of {tensor.dtype} cannot be saved")
    type_ = BLOCK_TYPES[TYPE_NAMES[tensor.dtype]]
    return PlannedTensor(name, tuple(tensor.shape), type_, lambda: _chunks(tensor))


def _chunks(tensor: Tensor) -> Iterator[NDArray[np.uint8]]:
    raw = cast(NDArray[np.uint8], tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    for first in range(0, len(raw), _CHUNK):
        yield raw[first : first + _CHUNK]
