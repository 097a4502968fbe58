"""Random rows of every tensor type, and the float64 answer that a linear map over them must come close to."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from openherd.quant.dequantize import dequantize
from openherd.quant.types import BLOCK_TYPES, PLAIN_TYPES, BlockType

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
U8 = NDArray[np.uint8]

FLOAT_TYPES = PLAIN_TYPES
# Where a block keeps its float16 scales; every other byte may be anything.
HALF_SCALES = {
    **{"Q4_0": (0,), "Q4_1": (0, 2), "Q5_0": (0,), "Q5_1": (0, 2), "Q8_0": (0,), "IQ4_NL": (0,), "MXFP4": ()},
    **{"Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)},
}
# Where the types with an offset keep their codes: without codes, a value is its offset.
CODES_OF_OFFSET_TYPES = {
    **{"Q4_1": slice(4, 20), "Q5_1": slice(4, 24)},
    **{"Q2_K": slice(16, 80), "Q4_K": slice(16, 144), "Q5_K": slice(16, 176)},
}
# Values that share a scale.
SUB_BLOCK = {"Q2_K": 16, "Q3_K": 16, "Q6_K": 16}
UNIT_ROUNDOFF = 2.0**-24


def random_rows(type: BlockType, n_rows: int, n_cols: int, seed: int = 0) -> U8:
    """Rows [n_rows, row_bytes] of random blocks with finite scales of either sign."""
    rng = np.random.default_rng([seed, type.ggml_id, n_rows, n_cols])
    if type.name in FLOAT_TYPES:
        values = rng.standard_normal((n_rows, n_cols)).astype(np.float32)
        if type.name == "BF16":
            return (values.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
        return values.astype(np.float16 if type.name == "F16" else np.float32).view(np.uint8)
    blocks = rng.integers(0, 256, (n_rows * n_cols // type.block_len, type.block_bytes), dtype=np.uint8)
    for at in HALF_SCALES[type.name]:
        blocks[:, at : at + 2] = rng.standard_normal((len(blocks), 1)).astype(np.float16).view(np.uint8)
    if type.name == "MXFP4":
        blocks[:, 0] = rng.integers(110, 140, len(blocks))  # an exponent of 2^(e - 128)
    return blocks.reshape(n_rows, -1)


def offsets(type: BlockType, rows: U8) -> F32 | float:
    """The offset that each value of `rows` was given, 0 for types that have none."""
    if type.name not in CODES_OF_OFFSET_TYPES:
        return 0.0
    blocks = rows.reshape(-1, type.block_bytes).copy()
    blocks[:, CODES_OF_OFFSET_TYPES[type.name]] = 0
    return dequantize(blocks.reshape(rows.shape), type)


def fine_blocks(absmax: F32) -> NDArray[np.bool_]:
    """Which blocks [T, K / 32] of rows have 15 bits: those above their row's mean, summed in order."""
    total = np.cumsum(absmax, axis=-1, dtype=np.float32)[:, -1:]
    return absmax > np.float32(1) / np.float32(absmax.shape[1]) * total


def quantized_activations(x: F32, isa: str) -> tuple[F32, F32]:
    """The specification of quantised activations, K a multiple of 32: codes [T, K] and scales [T, K / 32].

    scale = absmax / (127 * 2^f), f = 7; code = x * (127 * 2^f / absmax) in a fine block, else 2^f times
    x * (127 / absmax); to nearest, ties to even; all in float32. With a matrix unit f = 4 and every block is fine.
    """
    blocks = x.reshape(len(x), -1, 32)
    absmax = np.abs(blocks).max(axis=-1)
    large = absmax >= 2.0**-112
    unit, fine = (np.float32(16), np.True_) if isa == "amx" else (np.float32(128), fine_blocks(absmax))
    steps = np.where(fine, np.float32(127) * unit, np.float32(127))
    inverse = np.divide(steps, absmax, out=np.zeros_like(absmax), where=large)
    scale = np.where(large, absmax / (np.float32(127) * unit), np.float32(0))
    codes = np.rint(blocks * inverse[..., None]) * np.where(fine, np.float32(1), unit)[..., None]
    return codes.reshape(x.shape), scale


def oracle(type: BlockType, rows: U8, x: F32, isa: str) -> tuple[F64, F64]:
    """x W^T in float64 from the raw blocks, and how far a float32 result may lie from it.

    The products of codes are exact integers, as are scale * code in float32 (11 bits of float16, 8 of a sub-block's
    scale or code, 6 of a code: at most 24). What rounds is, per sub-block: the sum of products as a float; the product
    of the scales; the sum's scaling, where there is an offset; one or two additions to the accumulator, each twice
    where the machine has no fused multiply-add; and one addition in the specification itself. A term therefore sees at
    most m = 2 * (additions) + 5 roundings of relative size u = 2^-24, and |error| <= m u / (1 - m u) times the sum of
    the terms' magnitudes (Higham 2002, section 3.1), where a term is |scale * code| + |offset| <= |value| + 2 |offset|.
    """
    weights = dequantize(rows, type)
    n_cols = x.shape[1]
    if type.name in FLOAT_TYPES:
        values = x.astype(np.float64)
        additions = n_cols
    else:
        codes, scale = quantized_activations(x, isa)
        values = codes.astype(np.float64) * np.repeat(scale, 32, axis=1)
        additions = n_cols // SUB_BLOCK.get(type.name, 32) * (2 if type.name in CODES_OF_OFFSET_TYPES else 1)
    exact = values @ weights.T.astype(np.float64)
    magnitude = np.abs(values) @ (np.abs(weights) + 2 * np.abs(offsets(type, rows))).T.astype(np.float64)
    roundings = (2 * additions + 5) * UNIT_ROUNDOFF
    return exact, roundings / (1 - roundings) * magnitude


ALL_TYPES = tuple(BLOCK_TYPES.values())
