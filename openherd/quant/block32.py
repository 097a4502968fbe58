"""Blocks of 32 values with one float16 scale: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0.

Each dtype below is the block's layout, byte for byte, little-endian. Values i and i + 16 of a block share the
byte `qs[i]`: the low nibble is value i, the high nibble value i + 16. Five-bit codes keep their fifth bit in
bit i of `qh`. `_0` formats are symmetric, w = d * (q - offset); `_1` formats affine, w = d * q + m.

Source: ggml's block structures, which GGUF files carry. Every function maps blocks [B] of its dtype to
float32 [B, 32], in the order of operations that the `gguf` package uses, so that results are equal bit for bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
Blocks = NDArray[Any]  # structured, one of the dtypes below

Q4_0 = np.dtype([("d", "<f2"), ("qs", "u1", 16)])
Q4_1 = np.dtype([("d", "<f2"), ("m", "<f2"), ("qs", "u1", 16)])
Q5_0 = np.dtype([("d", "<f2"), ("qh", "u1", 4), ("qs", "u1", 16)])
Q5_1 = np.dtype([("d", "<f2"), ("m", "<f2"), ("qh", "u1", 4), ("qs", "u1", 16)])
Q8_0 = np.dtype([("d", "<f2"), ("qs", "i1", 32)])


def nibbles(qs: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Bytes [B, 16] to four-bit codes [B, 32]: all low nibbles, then all high nibbles."""
    return np.concatenate((qs & np.uint8(15), qs >> np.uint8(4)), axis=-1)


def _five_bits(blocks: Blocks) -> NDArray[np.uint8]:
    high = np.unpackbits(blocks["qh"], axis=-1, bitorder="little")  # [B, 32]
    return nibbles(blocks["qs"]) | (high << np.uint8(4))


def scale(field: NDArray[Any]) -> F32:
    """A float16 field [B] as float32 [B, 1]."""
    return field.astype(np.float32)[:, None]


def q4_0(blocks: Blocks) -> F32:
    q = nibbles(blocks["qs"]).astype(np.int8) - np.int8(8)
    return scale(blocks["d"]) * q.astype(np.float32)


def q4_1(blocks: Blocks) -> F32:
    return scale(blocks["d"]) * nibbles(blocks["qs"]).astype(np.float32) + scale(blocks["m"])


def q5_0(blocks: Blocks) -> F32:
    q = _five_bits(blocks).astype(np.int8) - np.int8(16)
    return scale(blocks["d"]) * q.astype(np.float32)


def q5_1(blocks: Blocks) -> F32:
    return scale(blocks["d"]) * _five_bits(blocks).astype(np.float32) + scale(blocks["m"])


def q8_0(blocks: Blocks) -> F32:
    return blocks["qs"].astype(np.float32) * scale(blocks["d"])
