"""Float32 to raw blocks, for the types whose best codes follow from a formula: F32, F16, BF16, Q8_0, Q4_0, Q4_1.

Source: ggml's reference quantisers, `quantize_row_q8_0_ref` and its neighbours; results are equal bit for bit to
those of the `gguf` package. For models `quantize_search` leaves less error. Not covered: codebooks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openherd.quant import block32
from openherd.quant.dequantize import CHUNK_VALUES
from openherd.quant.types import BlockType

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]
HALF_MAX = 65504.0


def quantize(values: F32, type: BlockType) -> U8:
    """Rows of float32 [..., n] as raw blocks, uint8 [..., row_bytes].

    Raises ValueError for a type that is not in the table below, for rows that do not end on a block's end, and for
    values (or, of a block, a scale) that the type cannot hold: only F32, F16 and BF16 keep NaN and infinity.
    """
    if type.name not in _ENCODERS:
        raise ValueError(f"{type.name} cannot be made from floats here; {', '.join(_ENCODERS)} can")
    rows = np.ascontiguousarray(values, np.float32)
    row_bytes = type.row_bytes(rows.shape[-1])
    blocks = rows.reshape(-1, type.block_len)
    out = np.empty((len(blocks), type.block_bytes), np.uint8)
    chunk = CHUNK_VALUES // type.block_len
    for start in range(0, len(blocks), chunk):
        with np.errstate(all="ignore"):  # what cannot be held is refused by value, not by warning
            encoded = _ENCODERS[type.name](blocks[start : start + chunk])
        out[start : start + chunk] = np.ascontiguousarray(encoded).view(np.uint8).reshape(-1, type.block_bytes)
    return out.reshape(*rows.shape[:-1], row_bytes)


def _f16(blocks: F32) -> NDArray[Any]:
    return blocks.astype("<f2")  # beyond 65504 is infinity, as IEEE 754 rounds


def _bf16(blocks: F32) -> NDArray[Any]:
    """Round to nearest, ties to even; a NaN stays a (quiet) NaN."""
    bits = blocks.view(np.uint32)
    rounded = (bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))) >> np.uint32(16)
    quiet = (bits >> np.uint32(16)) | np.uint32(0x40)
    return np.where(np.isnan(blocks), quiet, rounded).astype("<u2")


def _inverse(d: F32) -> F32:
    """1 / d where d is not 0, else 0."""
    return np.divide(np.float32(1), d, out=np.zeros_like(d), where=d != 0)


def _pack_nibbles(codes: F32) -> U8:
    """Codes [B, 32], truncated and held to 0..15, as bytes [B, 16]: value i low, value i + 16 high."""
    q: U8 = np.trunc(codes).astype(np.uint8).clip(0, 15)
    packed: U8 = q[:, :16] | (q[:, 16:] << np.uint8(4))
    return packed


def _half(d: F32, type_name: str) -> NDArray[np.float16]:
    if not (np.abs(d) <= HALF_MAX).all():
        raise ValueError(f"{type_name} cannot hold values this large, or not finite")
    return d[:, 0].astype("<f2")


def _q8_0(blocks: F32) -> NDArray[Any]:
    """The largest magnitude becomes 127; halves round away from zero."""
    d = np.abs(blocks).max(axis=1, keepdims=True) / np.float32(127)
    out = np.empty(len(blocks), block32.Q8_0)
    out["d"] = _half(d, "Q8_0")
    scaled = blocks * _inverse(d)
    whole = np.floor(np.abs(scaled))
    out["qs"] = np.copysign(whole + (np.abs(scaled) - whole >= 0.5), scaled).astype(np.int8)
    return out


def _q4_0(blocks: F32) -> NDArray[Any]:
    """The value of the largest magnitude becomes code 0, that is -8, with its sign in the scale."""
    peak = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=1, keepdims=True), axis=1)
    d = peak / np.float32(-8)
    out = np.empty(len(blocks), block32.Q4_0)
    out["d"] = _half(d, "Q4_0")
    out["qs"] = _pack_nibbles(blocks * _inverse(d) + np.float32(8.5))
    return out


def _q4_1(blocks: F32) -> NDArray[Any]:
    """The least value becomes code 0, the greatest 15."""
    low = blocks.min(axis=1, keepdims=True)
    d = (blocks.max(axis=1, keepdims=True) - low) / np.float32(15)
    out = np.empty(len(blocks), block32.Q4_1)
    out["d"], out["m"] = _half(d, "Q4_1"), _half(low, "Q4_1")
    out["qs"] = _pack_nibbles((blocks - low) * _inverse(d) + np.float32(0.5))
    return out


_ENCODERS: dict[str, Callable[[F32], NDArray[Any]]] = {
    "F32": lambda blocks: blocks.astype("<f4"),
    "F16": _f16,
    "BF16": _bf16,
    "Q8_0": _q8_0,
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
}
