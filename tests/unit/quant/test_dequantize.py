"""The specification against the `gguf` package, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from gguf.quants import dequantize as gguf_dequantize

from openherd.quant.dequantize import CHUNK_VALUES, dequantize
from openherd.quant.types import BLOCK_TYPES, BlockType

ALL_TYPES = pytest.mark.parametrize("block_type", BLOCK_TYPES.values(), ids=lambda t: t.name)


def expected(data: np.ndarray, block_type: BlockType) -> np.ndarray:
    with np.errstate(all="ignore"):
        return gguf_dequantize(data, GGMLQuantizationType(block_type.ggml_id))


def assert_same_bits(data: np.ndarray, block_type: BlockType) -> None:
    ours, theirs = dequantize(data, block_type), expected(data, block_type)
    assert ours.dtype == np.float32
    assert ours.shape == theirs.shape
    # A sum of two NaNs keeps the payload of whichever operand the compiler put first: NaN equals NaN here.
    differ = (ours.view(np.uint32) != theirs.view(np.uint32)) & ~(np.isnan(ours) & np.isnan(theirs))
    assert not differ.any()


@ALL_TYPES
def test_random_bytes(block_type: BlockType) -> None:
    """Random bytes reach every code; with 8 MB of them also NaN, infinite and denormal scales."""
    n_blocks = 8_000_000 // block_type.block_bytes // 1000
    data = np.random.default_rng(block_type.ggml_id).integers(
        0, 256, (1000, n_blocks * block_type.block_bytes), np.uint8
    )
    assert_same_bits(data, block_type)


@ALL_TYPES
def test_every_byte_value_everywhere(block_type: BlockType) -> None:
    """Blocks whose bytes are all 0, all 1, ... all 255: zero codes, full codes and special scales together."""
    data = np.repeat(np.arange(256, dtype=np.uint8)[:, None], block_type.block_bytes, axis=1)
    assert_same_bits(data, block_type)


SPECIAL_HALVES = np.array([0x0000, 0x8000, 0x0001, 0x83FF, 0x7C00, 0xFC00, 0x7C01, 0x7E00, 0xFE01, 0x7BFF], "<u2")
HALF_OFFSETS = {
    "Q4_0": (0,), "Q4_1": (0, 2), "Q5_0": (0,), "Q5_1": (0, 2), "Q8_0": (0,), "Q2_K": (80, 82), "Q3_K": (108,),
    "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,), "IQ4_NL": (0,), "F16": (0,), "BF16": (0,), "F32": (2,),
}  # fmt: skip


@pytest.mark.parametrize("name", HALF_OFFSETS)
def test_special_scales(name: str) -> None:
    """Zero, denormal, infinite, NaN and greatest scales over random codes."""
    block_type = BLOCK_TYPES[name]
    data = np.random.default_rng(5).integers(0, 256, (len(SPECIAL_HALVES), block_type.block_bytes), np.uint8)
    for offset in HALF_OFFSETS[name]:
        data[:, offset : offset + 2] = SPECIAL_HALVES[:, None].view(np.uint8)
        assert_same_bits(data, block_type)


def test_mxfp4_every_exponent_and_code() -> None:
    block_type = BLOCK_TYPES["MXFP4"]
    data = np.empty((256, 17), np.uint8)
    data[:, 0] = np.arange(256)
    data[:, 1:] = np.arange(16) * 16 + np.arange(16)[::-1]
    assert_same_bits(data, block_type)


@ALL_TYPES
def test_leading_dimensions_and_chunks(block_type: BlockType) -> None:
    """More blocks than one chunk, three leading dimensions, rows that are a strided view."""
    n_blocks = CHUNK_VALUES // block_type.block_len // 12 + 1
    wide = np.random.default_rng(1).integers(0, 256, (2, 3, 4, n_blocks * block_type.block_bytes * 2), np.uint8)
    data = wide[..., : n_blocks * block_type.block_bytes]
    assert dequantize(data, block_type).shape == (2, 3, 4, n_blocks * block_type.block_len)
    assert_same_bits(np.ascontiguousarray(data), block_type)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(dequantize(data, block_type), dequantize(np.ascontiguousarray(data), block_type))


def test_empty_rows() -> None:
    assert dequantize(np.empty((0, 18), np.uint8), BLOCK_TYPES["Q4_0"]).shape == (0, 32)
    assert dequantize(np.empty((3, 0), np.uint8), BLOCK_TYPES["Q4_0"]).shape == (3, 0)


def test_partial_blocks_are_refused() -> None:
    with pytest.raises(ValueError, match=r"19 bytes is not whole blocks of Q4_0"):
        dequantize(np.zeros(19, np.uint8), BLOCK_TYPES["Q4_0"])


def test_other_dtypes_are_refused() -> None:
    with pytest.raises(ValueError, match="uint8"):
        dequantize(np.zeros(18, np.int8), BLOCK_TYPES["Q4_0"])
