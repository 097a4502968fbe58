"""Weights between checkpoints and a `Decoder`, tensor by tensor: at no time is more than one of them held twice."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from openherd.checkpoints import source
from openherd.checkpoints.required_tensors import required_tensors
from openherd.checkpoints.source import Checkpoint
from openherd.errors import FormatError
from openherd.quant.dequantize import dequantize
from openherd.train.model.decoder import Decoder, Device
from openherd.train.model.filling import fill, whole
from openherd.train.model.float_types import DTYPES
from openherd.train.model.lora import merged_weight
from openherd.train.model.quantized import QuantizedLinear, quantize_base

_CHUNK_VALUES = 1 << 22  # decoded at a time


def model_from(
    checkpoint: Checkpoint, dtype: torch.dtype = torch.float32, *, device: Device = None, base_type: str = ""
) -> Decoder:
    """The checkpoint's model with its weights as `dtype`; where a `base_type` ("q8_0", ...) is given, the linear maps
    of its layers are blocks of it (see `quantized.py`)."""
    model = Decoder(checkpoint.config, dtype=dtype, device="meta")
    if base_type:
        quantize_base(model, base_type)
    model.to_empty(device=device or "cpu")
    load_weights(model, checkpoint)
    return model


def load_weights(model: Decoder, checkpoint: Checkpoint) -> None:
    """Set every parameter from a checkpoint of the same shapes; any block type is decoded, floats keep their value as
    far as the model's type holds it (bf16 and f16 exactly in float32 and in themselves).

    The model may be sharded; LoRA's pairs stay as they are. Raises FormatError, naming the tensor, when the checkpoint
    lacks one or has it in another shape. Tensors that the model has no place for are not looked at.
    """
    for name, shape in required_tensors(model.config):
        tensor = _fitting(checkpoint, name, shape)
        leaf = model.get_submodule(name.rpartition(".")[0])
        if isinstance(leaf, QuantizedLinear) and name.endswith(".weight"):
            leaf.take(tensor)
        else:
            fill(leaf.get_parameter(name.rpartition(".")[2]), float_values(tensor, model_dtype(leaf)))
        tensor.give_back()


def model_dtype(leaf: nn.Module) -> torch.dtype:
    return next(parameter for parameter in leaf.parameters(recurse=False)).dtype


def _fitting(checkpoint: Checkpoint, name: str, shape: tuple[int, ...]) -> source.Tensor:
    if name not in checkpoint.tensors:
        raise FormatError(f"{checkpoint.path} lacks the tensor {name}, which its model needs")
    tensor = checkpoint.tensors[name]
    if tensor.shape != shape:
        raise FormatError(
            f"{checkpoint.path}: {name} has shape {tensor.shape}, the model to train needs {shape}",
            hint="the settings of the model (dim, n_layers, ...) must be those of the checkpoint it begins with",
        )
    return tensor


def float_values(tensor: source.Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """The tensor's values as `dtype`, on the CPU."""
    rows = tensor.rows()
    if tensor.type.name in DTYPES:
        stored = torch.from_numpy(np.array(rows)).view(DTYPES[tensor.type.name])
        return stored.view(tensor.shape).to(dtype)
    values = torch.empty(len(rows), tensor.shape[-1], dtype=dtype)
    step = max(1, _CHUNK_VALUES // tensor.shape[-1])
    for start in range(0, len(rows), step):
        values[start : start + step] = torch.from_numpy(dequantize(rows[start : start + step], tensor.type))
    return values.view(tensor.shape)


def named_tensors(model: Decoder) -> Iterator[tuple[str, Tensor]]:
    """Canonical names and whole tensors, LoRA merged in (float32) and blocks decoded: what an export writes and the
    engine draws from. Of a sharded model every process must go through all of it."""
    _let_go(model)
    for name, _ in required_tensors(model.config):
        path, _, kind = name.rpartition(".")
        leaf = model.get_submodule(path)
        yield name, merged_weight(leaf) if kind == "weight" else whole(leaf.get_parameter(kind))


def _let_go(model: Decoder) -> None:
    """Of a model sharded by FSDP2 the root's weights are whole after a forward pass, in memory that FSDP2 will free.
    That memory must not be handed out: what NumPy has seen cannot be freed."""
    for module in model.modules():
        if callable(reshard := getattr(module, "reshard", None)):
            reshard()
