"""QLoRA: a frozen base whose linear maps stay in the blocks of a quantised type, under adapters in float32.

Source: Dettmers et al. 2023, "QLoRA: Efficient Finetuning of Quantized LLMs", section 3, with the block types of model
files instead of NF4: a base trained on is the very base that the adapter is served with. A weight is decoded for a
product and dropped; the backward pass decodes it again, since keeping it would cost what blocks save. The base gets no
gradient; the input does. Embeddings, norms and the output matrix stay as they are.

Legend: N outputs and K inputs of a linear map.
"""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from openherd.checkpoints import source
from openherd.checkpoints.required_tensors import linear_maps
from openherd.errors import FormatError, OptionError, UnsupportedError
from openherd.kernels.quantize_rows import F32, U8, RowQuantizer
from openherd.quant.dequantize import dequantize
from openherd.quant.types import BLOCK_TYPES, BlockType
from openherd.train.model.blocks import decode
from openherd.train.model.decoder import Decoder, add_leaf
from openherd.train.model.leaves import Adaptable, Linear

BASE_TYPES = ("q8_0", "q4_1", "q4_0")


class QuantizedLinear(Adaptable):
    """x W^T (+ b) + what an adapter adds, with W as raw blocks [N, row_bytes]."""

    blocks: Tensor

    def __init__(self, linear: Linear, type: BlockType) -> None:
        """The blocks are not set when `linear` is on the device "meta"."""
        super().__init__()
        self.in_features, self.out_features, self.block_type = linear.in_features, linear.out_features, type
        self.dtype = linear.weight.dtype
        row_bytes = type.row_bytes(self.in_features)
        device = linear.weight.device
        self.register_buffer("blocks", torch.empty(self.out_features, row_bytes, dtype=torch.uint8, device=device))
        self.bias = linear.bias
        if device.type != "meta":
            self._set(_quantized(linear.weight.detach().float().cpu().numpy(), type))

    def take(self, tensor: source.Tensor) -> None:
        """The blocks of a file's tensor as they are, or its values in blocks of our type."""
        rows = tensor.rows()
        self._set(
            rows if tensor.type == self.block_type else _quantized(dequantize(rows, tensor.type), self.block_type)
        )

    def _set(self, rows: U8) -> None:
        self.blocks.copy_(torch.from_numpy(np.array(rows)))

    def values(self) -> Tensor:
        """[N, K] in the type that the weights would have without blocks."""
        return decode(self.blocks, self.block_type, self.dtype)

    def forward(self, x: Tensor) -> Tensor:
        y = cast(Tensor, _Product.apply(x, self.blocks, self.block_type))
        return self.adapted(x, y if self.bias is None else y + self.bias.to(x.dtype))


def _quantized(values: F32, type: BlockType) -> U8:
    """Blocks of least squared error. Raises FormatError for weights that are not finite."""
    blocks, error, _ = RowQuantizer()(values, type)
    if not math.isfinite(error):
        raise FormatError(f"a weight of the base model is not finite, or too large for {type.name}")
    return blocks


class _Product(torch.autograd.Function):
    """x W^T; only the blocks are kept for the gradient of x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, blocks: Tensor, type: BlockType) -> Tensor:
        ctx.save_for_backward(blocks)
        ctx.type = type
        return functional.linear(x, decode(blocks, type, x.dtype))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (grad,), (blocks,) = grads, ctx.saved_tensors
        return grad @ decode(blocks, ctx.type, grad.dtype), None, None


def quantize_base(model: Decoder, base_type: str) -> None:
    """Replace the linear maps of every layer (not experts') by blocks of `base_type`, one of `BASE_TYPES`.

    Raises OptionError for another type, UnsupportedError where rows do not end on a block's end.
    """
    if base_type not in BASE_TYPES:
        raise OptionError(f"lora.base_type must be one of {', '.join(BASE_TYPES)}, not {base_type!r}")
    type = BLOCK_TYPES[base_type.upper()]
    for layer in range(model.config.n_layers):
        for linear in linear_maps(model.config):
            path = f"model.layers.{layer}.{linear}"
            leaf = cast(Linear, model.get_submodule(path))
            if leaf.in_features % type.block_len:
                raise UnsupportedError(
                    f"{path} has rows of {leaf.in_features} values, no multiple of {type.name}'s {type.block_len}",
                    hint='set lora.base_type = "" to keep the base in floats',
                )
            add_leaf(model, path, QuantizedLinear(leaf, type))
    model.requires_grad_(False)
