"""Random tensors of every block type: any bits are a valid block, once its scales are finite and of the wanted size."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from openherd.checkpoints.source import Tensor
from openherd.quant.dequantize import dequantize
from openherd.quant.types import BLOCK_TYPES, BlockType
from tests.parity.random_llama import RandomUniform

U8 = NDArray[np.uint8]

# Where a block keeps its float16 scales and minima.
HALF_OFFSETS: dict[str, tuple[int, ...]] = {
    "F16": (0,),
    "Q4_0": (0,),
    "Q4_1": (0, 2),
    "Q5_0": (0,),
    "Q5_1": (0, 2),
    "Q8_0": (0,),
    "Q2_K": (80, 82),
    "Q3_K": (108,),
    "Q4_K": (0, 2),
    "Q5_K": (0, 2),
    "Q6_K": (208,),
    "IQ4_NL": (0,),
}
MXFP4_EXPONENT = 127  # 2^0 in E8M0, the scale that MXFP4 blocks start with


def random_block_tensor(
    name: str, shape: tuple[int, int], type_name: str, uniform: RandomUniform, *, deviation: float
) -> Tensor:
    """[N, K] of random blocks whose values have about the given standard deviation and mean 0."""
    block_type = BLOCK_TYPES[type_name]
    n, k = shape
    if type_name in ("F32", "BF16"):
        floats = uniform.array(shape, deviation=deviation).view(np.uint8).reshape(n, k, 4)
        rows = floats[..., 4 - block_type.block_bytes :].reshape(n, -1)  # BF16 is the upper half
    else:
        rows = _random_rows(n, k, block_type, uniform, deviation)
    rows = np.ascontiguousarray(rows)
    return Tensor(name, shape, block_type, lambda: rows)


def _random_rows(n: int, k: int, block_type: BlockType, uniform: RandomUniform, deviation: float) -> U8:
    n_blocks = n * k // block_type.block_len
    blocks = uniform.ids(n_blocks * block_type.block_bytes, 256).astype(np.uint8).reshape(n_blocks, -1)
    if block_type.name == "MXFP4":
        blocks[:, 0] = MXFP4_EXPONENT
        exponent = np.round(np.log2(deviation / np.std(dequantize(blocks, block_type))))
        blocks[:, 0] = MXFP4_EXPONENT + int(exponent) + uniform.ids(n_blocks, 3) - 1
        return blocks.reshape(n, -1)
    halves = {at: _signed_halves(n_blocks, uniform) for at in HALF_OFFSETS[block_type.name]}
    _write_halves(blocks, halves, 1.0)
    _write_halves(blocks, halves, deviation / float(np.std(dequantize(blocks, block_type))))
    return blocks.reshape(n, -1)


def _signed_halves(n: int, uniform: RandomUniform) -> NDArray[np.float32]:
    """Sizes from 0.5 to 1.5 of either sign, so that unsigned quants still have mean 0."""
    sizes = 1.0 + uniform.array((n,), deviation=0.5 / np.sqrt(3.0))
    return np.where(uniform.ids(n, 2) == 0, sizes, -sizes).astype(np.float32)


def _write_halves(blocks: U8, halves: dict[int, NDArray[np.float32]], factor: float) -> None:
    for at, values in halves.items():
        blocks[:, at : at + 2] = (values * factor).astype(np.float16).view(np.uint8).reshape(-1, 2)
