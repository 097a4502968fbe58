"""K-quants: super-blocks of 256 values whose sub-blocks have quantised scales: Q2_K to Q6_K.

Each dtype below is the super-block's layout, byte for byte, little-endian. A super-block has 16 sub-blocks of 16
values (Q2_K, Q3_K, Q6_K) or 8 of 32 (Q4_K, Q5_K). Q2_K, Q4_K and Q5_K are affine, w = d * sc * q - dmin * mn,
with sc and mn the sub-block's small integers; Q3_K and Q6_K are symmetric, w = d * sc * (q - offset).

Source: ggml's block structures (k-quants by Kawrakow, llama.cpp pull request 1684). Every function maps blocks
[B] of its dtype to float32 [B, 256], in the order of operations that the `gguf` package uses.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from openherd.quant.block32 import F32, Blocks, scale

U8 = NDArray[np.uint8]

Q2_K = np.dtype([("scales", "u1", 16), ("qs", "u1", 64), ("d", "<f2"), ("dmin", "<f2")])
Q3_K = np.dtype([("hmask", "u1", 32), ("qs", "u1", 64), ("scales", "u1", 12), ("d", "<f2")])
Q4_K = np.dtype([("d", "<f2"), ("dmin", "<f2"), ("scales", "u1", 12), ("qs", "u1", 128)])
Q5_K = np.dtype([("d", "<f2"), ("dmin", "<f2"), ("scales", "u1", 12), ("qh", "u1", 32), ("qs", "u1", 128)])
Q6_K = np.dtype([("ql", "u1", 128), ("qh", "u1", 64), ("scales", "i1", 16), ("d", "<f2")])


def _planes(packed: U8, width: int, bits: int) -> U8:
    """Codes of `bits` bits packed as planes: of each run of `width` bytes, first the lowest bits of all, and so on.

    [B, n] bytes to [B, n * 8 / bits] codes.
    """
    shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None]
    codes = (packed.reshape(len(packed), -1, 1, width) >> shifts) & np.uint8((1 << bits) - 1)
    return codes.reshape(len(packed), -1)


def _sub_blocks(codes: NDArray[Any], n: int) -> F32:
    """Codes [B, 256] as float32 [B, n, 256 / n]."""
    return codes.reshape(len(codes), n, -1).astype(np.float32)


def q2_k(blocks: Blocks) -> F32:
    """Byte i of `scales`: low nibble sc, high nibble mn of sub-block i."""
    d = scale(blocks["d"]) * (blocks["scales"] & np.uint8(15)).astype(np.float32)  # [B, 16]
    m = scale(blocks["dmin"]) * (blocks["scales"] >> np.uint8(4)).astype(np.float32)
    w = d[:, :, None] * _sub_blocks(_planes(blocks["qs"], 32, 2), 16) - m[:, :, None]
    return w.reshape(-1, 256)


def q3_k(blocks: Blocks) -> F32:
    """A set bit in `hmask` means no offset: q - 4 becomes q. Scales are 6 bits, stored plus 32.

    Bytes 0-7 of `scales` hold the low nibbles of scales 0-7 and, above, of 8-15; bytes 8-11 the high bit pairs.
    """
    low = _planes(blocks["scales"][:, :8], 8, 4)
    high = _planes(blocks["scales"][:, 8:], 4, 2)
    scales = (low | (high << np.uint8(4))).astype(np.int8) - np.int8(32)
    d = scale(blocks["d"]) * scales.astype(np.float32)  # [B, 16]
    offset = (_planes(blocks["hmask"], 32, 1) ^ np.uint8(1)) << np.uint8(2)
    q = _planes(blocks["qs"], 32, 2).astype(np.int8) - offset.astype(np.int8)
    return (d[:, :, None] * _sub_blocks(q, 16)).reshape(-1, 256)


def _scales_and_mins(packed: U8) -> tuple[F32, F32]:
    """Eight 6-bit scales and eight 6-bit minima from 12 bytes: ([B, 8], [B, 8]).

    Bytes 0-3 hold scales 0-3 in their low six bits, bytes 4-7 minima 0-3; bytes 8-11 the low nibbles of scales 4-7
    and, above, of minima 4-7, whose two high bits are the high bits of bytes 0-3 and 4-7.
    """
    first, second, third = packed[:, 0:4], packed[:, 4:8], packed[:, 8:12]
    low6, bits45 = np.uint8(0x3F), np.uint8(0x30)
    scales_high = (third & np.uint8(15)) | ((first >> np.uint8(2)) & bits45)
    mins_high = (third >> np.uint8(4)) | ((second >> np.uint8(2)) & bits45)
    scales = np.concatenate((first & low6, scales_high), axis=-1)
    mins = np.concatenate((second & low6, mins_high), axis=-1)
    return scales.astype(np.float32), mins.astype(np.float32)


def _affine(blocks: Blocks, codes: U8) -> F32:
    scales, mins = _scales_and_mins(blocks["scales"])
    d = scale(blocks["d"]) * scales  # [B, 8]
    m = scale(blocks["dmin"]) * mins
    return (d[:, :, None] * _sub_blocks(codes, 8) - m[:, :, None]).reshape(-1, 256)


def q4_k(blocks: Blocks) -> F32:
    return _affine(blocks, _planes(blocks["qs"], 32, 4))


def q5_k(blocks: Blocks) -> F32:
    return _affine(blocks, _planes(blocks["qs"], 32, 4) | (_planes(blocks["qh"], 32, 1) << np.uint8(4)))


def q6_k(blocks: Blocks) -> F32:
    """Signed 8-bit scales; codes are stored plus 32."""
    d = scale(blocks["d"]) * blocks["scales"].astype(np.float32)  # [B, 16]
    codes = _planes(blocks["ql"], 64, 4) | (_planes(blocks["qh"], 32, 2) << np.uint8(4))
    q = codes.astype(np.int8) - np.int8(32)
    return (d[:, :, None] * _sub_blocks(q, 16)).reshape(-1, 256)
