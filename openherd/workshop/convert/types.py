"""Which block type each tensor gets."""

from __future__ import annotations

from typing import Literal

from openherd.checkpoints.source import Tensor
from openherd.quant.types import BLOCK_TYPES, PLAIN_TYPES, BlockType

Target = Literal["safetensors", "gguf"]
Dtype = Literal["keep", "f32", "f16", "bf16"]

_NAMES = {"f32": "F32", "f16": "F16", "bf16": "BF16"}
# GGUF's `general.file_type`, of the type that most weights have.
FILE_TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "BF16": 32}
HF_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def type_of(tensor: Tensor, target: Target, dtype: Dtype) -> BlockType:
    """The tensor's type in the new file.

    GGUF keeps vectors in float32, which llama.cpp asks for, and blocks as they are unless a type is asked for.
    Safetensors has no blocks: they become f16 unless a type is asked for.
    """
    if target == "gguf" and len(tensor.shape) == 1:
        return BLOCK_TYPES["F32"]
    if dtype != "keep":
        return BLOCK_TYPES[_NAMES[dtype]]
    if target == "safetensors" and tensor.type.name not in PLAIN_TYPES:
        return BLOCK_TYPES["F16"]
    return tensor.type
