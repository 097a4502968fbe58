"""Codes and scales to raw blocks: the way back of `block32` and `k_quants`, whose dtypes say what lies where.

Codes are as stored (0 for the lowest), float32 of whole numbers, [B, values that share a scale].
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from openherd.quant import block32, k_quants
from openherd.quant.types import BlockType

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]


def symmetric(type: BlockType, d: F32, codes: F32) -> U8:
    """Q4_0, Q5_0, Q8_0 (whose codes are signed): [B, block_bytes]."""
    if type.name == "Q8_0":
        out = np.empty(len(d), block32.Q8_0)
        out["d"], out["qs"] = d, codes.astype(np.int8)
        return _bytes(out)
    out = np.empty(len(d), getattr(block32, type.name))
    out["d"] = d
    _put_codes(out, codes.astype(np.uint8), 16)
    return _bytes(out)


def affine(type: BlockType, d: F32, m: F32, codes: F32) -> U8:
    """Q4_1, Q5_1."""
    out = np.empty(len(d), getattr(block32, type.name))
    out["d"], out["m"] = d, m
    _put_codes(out, codes.astype(np.uint8), 16)
    return _bytes(out)


def symmetric_super(type: BlockType, d: F32, sub: F32, codes: F32) -> U8:
    """Q3_K, Q6_K: one d and sixteen `sub` for each super-block."""
    out = np.empty(len(d), getattr(k_quants, type.name))
    out["d"] = d
    q, scales = codes.reshape(-1, 256).astype(np.uint8), sub.reshape(-1, 16).astype(np.int16)
    if type.name == "Q6_K":
        out["ql"], out["qh"], out["scales"] = planes(q, 64, 4), planes(q >> np.uint8(4), 32, 2), scales
    else:
        six = (scales + 32).astype(np.uint8)
        out["hmask"], out["qs"] = planes(q >> np.uint8(2), 32, 1), planes(q, 32, 2)
        out["scales"][:, :8], out["scales"][:, 8:] = planes(six, 8, 4), planes(six >> np.uint8(4), 4, 2)
    return _bytes(out)


def affine_super(type: BlockType, d: F32, dmin: F32, sub: F32, sub_min: F32, codes: F32) -> U8:
    """Q2_K (sixteen scales and minima for each super-block), Q4_K, Q5_K (eight)."""
    out = np.empty(len(d), getattr(k_quants, type.name))
    out["d"], out["dmin"] = d, dmin
    q = codes.reshape(-1, 256).astype(np.uint8)
    scales, mins = (v.reshape(len(d), -1).astype(np.uint8) for v in (sub, sub_min))
    if type.name == "Q2_K":
        out["scales"], out["qs"] = scales | mins << 4, planes(q, 32, 2)
        return _bytes(out)
    packed = out["scales"]
    packed[:, 0:4] = scales[:, :4] | (scales[:, 4:] >> 4) << 6
    packed[:, 4:8] = mins[:, :4] | (mins[:, 4:] >> 4) << 6
    packed[:, 8:12] = (scales[:, 4:] & 15) | (mins[:, 4:] & 15) << 4
    out["qs"] = planes(q, 32, 4)
    if type.name == "Q5_K":
        out["qh"] = planes(q >> np.uint8(4), 32, 1)
    return _bytes(out)


def planes(codes: U8, width: int, bits: int) -> U8:
    """The lowest `bits` bits of codes [B, n], [B, n * bits / 8]: of each run of width * 8 / bits codes, the first
    `width` in the lowest bits of `width` bytes, the next above them, and so on."""
    runs = (codes & np.uint8((1 << bits) - 1)).reshape(len(codes), -1, 8 // bits, width)
    shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None]
    packed: U8 = np.bitwise_or.reduce(runs << shifts, axis=2)
    return packed.reshape(len(codes), -1)


def _put_codes(out: NDArray[Any], codes: U8, width: int) -> None:
    out["qs"] = planes(codes, width, 4)
    if "qh" in (out.dtype.names or ()):
        out["qh"] = np.packbits(codes >> 4, axis=-1, bitorder="little")


def _bytes(out: NDArray[Any]) -> U8:
    return out.view(np.uint8).reshape(len(out), -1)
