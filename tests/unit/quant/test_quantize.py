"""Quantisers: the bounds of their formats, and the `gguf` package's bits."""

from __future__ import annotations

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from gguf.quants import quantize as gguf_quantize

from openherd.quant.dequantize import dequantize
from openherd.quant.quantize import quantize
from openherd.quant.types import BLOCK_TYPES

WRITABLE = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1")


@pytest.fixture
def weights() -> np.ndarray:
    """Blocks of many scales, with an all-zero, a constant and a one-sided block among them."""
    rng = np.random.default_rng(3)
    values = rng.standard_normal((400, 96), np.float32) * np.exp2(rng.integers(-9, 9, (400, 1))).astype(np.float32)
    values[0] = 0
    values[1] = -2.5
    values[2] = np.abs(values[2])
    return values


@pytest.mark.parametrize("name", WRITABLE)
def test_same_bits_as_gguf(name: str, weights: np.ndarray) -> None:
    block_type = BLOCK_TYPES[name]
    theirs = gguf_quantize(weights, GGMLQuantizationType(block_type.ggml_id)).view(np.uint8)
    ours = quantize(weights, block_type)
    assert ours.shape == (400, block_type.row_bytes(96))
    np.testing.assert_array_equal(ours, theirs)


# Half a step for Q8_0 (127 steps to the peak) and Q4_1 (15 steps from least to greatest); for Q4_0 a whole one of 8,
# because its codes end at 7 on the side that the peak is not on.
@pytest.mark.parametrize(("name", "levels"), [("Q8_0", 2 * 127), ("Q4_0", 8), ("Q4_1", 2 * 15)])
def test_error_is_within_one_step(name: str, levels: int, weights: np.ndarray) -> None:
    blocks = weights.reshape(-1, 32)
    restored = dequantize(quantize(blocks, BLOCK_TYPES[name]), BLOCK_TYPES[name])
    span = np.ptp(blocks, axis=1) if name == "Q4_1" else np.abs(blocks).max(axis=1)
    # Scale and minimum are rounded to float16, 2^-11 of their size each: up to 2 x 2^-11 of the peak after the codes.
    bound = span / levels + 3 * np.abs(blocks).max(axis=1) * 2.0**-11
    assert (np.abs(restored - blocks).max(axis=1) <= bound).all()


@pytest.mark.parametrize(("name", "bits"), [("F16", 11), ("BF16", 8)])
def test_floats_round_to_nearest(name: str, bits: int, weights: np.ndarray) -> None:
    restored = dequantize(quantize(weights, BLOCK_TYPES[name]), BLOCK_TYPES[name])
    np.testing.assert_allclose(restored, weights, rtol=2.0**-bits, atol=2.0**-25)


@pytest.mark.parametrize("name", ["F32", "F16", "BF16"])
def test_floats_keep_special_values(name: str) -> None:
    special = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0], np.float32)
    restored = dequantize(quantize(special, BLOCK_TYPES[name]), BLOCK_TYPES[name])
    np.testing.assert_array_equal(restored, special)
    np.testing.assert_array_equal(np.signbit(restored[1:]), np.signbit(special[1:]))


@pytest.mark.parametrize("name", ["Q8_0", "Q4_0", "Q4_1"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_blocks_refuse_what_they_cannot_hold(name: str, value: float) -> None:
    block = np.ones(32, np.float32)
    block[7] = value
    with pytest.raises(ValueError, match=f"{name} cannot hold"):
        quantize(block, BLOCK_TYPES[name])


def test_other_types_and_partial_blocks_are_refused() -> None:
    with pytest.raises(ValueError, match="Q6_K cannot be made"):
        quantize(np.zeros(256, np.float32), BLOCK_TYPES["Q6_K"])
    with pytest.raises(ValueError, match="multiple of 32 values, not 33"):
        quantize(np.zeros(33, np.float32), BLOCK_TYPES["Q4_0"])
