"""Raw blocks to float32, for every type of `types.BLOCK_TYPES`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openherd.quant import block32, codebook, k_quants
from openherd.quant.types import BlockType

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

# Values decoded at a time: intermediate arrays of this many float32 stay within a core's cache.
CHUNK_VALUES = 1 << 16


def _f32(values: NDArray[Any]) -> F32:
    return values.astype(np.float32)[:, None]


def _bf16(values: NDArray[np.uint16]) -> F32:
    """bfloat16 is the upper half of a float32."""
    return (values.astype(np.uint32) << np.uint32(16)).view(np.float32)[:, None]


_DECODERS: dict[str, tuple[np.dtype[Any], Callable[[NDArray[Any]], F32]]] = {
    "F32": (np.dtype("<f4"), _f32),
    "F16": (np.dtype("<f2"), _f32),
    "BF16": (np.dtype("<u2"), _bf16),
    "Q4_0": (block32.Q4_0, block32.q4_0),
    "Q4_1": (block32.Q4_1, block32.q4_1),
    "Q5_0": (block32.Q5_0, block32.q5_0),
    "Q5_1": (block32.Q5_1, block32.q5_1),
    "Q8_0": (block32.Q8_0, block32.q8_0),
    "Q2_K": (k_quants.Q2_K, k_quants.q2_k),
    "Q3_K": (k_quants.Q3_K, k_quants.q3_k),
    "Q4_K": (k_quants.Q4_K, k_quants.q4_k),
    "Q5_K": (k_quants.Q5_K, k_quants.q5_k),
    "Q6_K": (k_quants.Q6_K, k_quants.q6_k),
    "IQ4_NL": (codebook.IQ4_NL, codebook.iq4_nl),
    "MXFP4": (codebook.MXFP4, codebook.mxfp4),
}


def dequantize(data: U8, type: BlockType) -> F32:
    """Rows of raw blocks, uint8 [..., row_bytes], as float32 [..., row_bytes / block_bytes * block_len].

    Equal bit for bit to `gguf.quants.dequantize`. A block whose scale is infinite or NaN gives what float32
    arithmetic gives, without a warning. Raises ValueError when rows do not end on a block's end.
    """
    if data.dtype != np.uint8 or data.ndim == 0:
        raise ValueError(f"{type.name} rows must be a uint8 array of at least one dimension, not {data.dtype}")
    n_blocks, rest = divmod(data.shape[-1], type.block_bytes)
    if rest:
        raise ValueError(
            f"a row of {data.shape[-1]} bytes is not whole blocks of {type.name} ({type.block_bytes} bytes)"
        )
    dtype, decode = _DECODERS[type.name]
    blocks = np.ascontiguousarray(data).reshape(-1).view(dtype)  # [B]
    values = np.empty((len(blocks), type.block_len), np.float32)
    chunk = CHUNK_VALUES // type.block_len
    with np.errstate(invalid="ignore", over="ignore"):
        for start in range(0, len(blocks), chunk):
            values[start : start + chunk] = decode(blocks[start : start + chunk])
    return values.reshape(*data.shape[:-1], n_blocks * type.block_len)
