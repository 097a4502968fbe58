"""Finite numbers told by their bits: as NumPy tells them, for every pattern of 16 bits."""

from __future__ import annotations

import numpy as np
import pytest

from openherd.quant.dequantize import dequantize
from openherd.quant.finite import finite
from openherd.quant.types import BLOCK_TYPES, PLAIN_TYPES


@pytest.mark.parametrize("name", PLAIN_TYPES)
def test_every_pattern(name: str) -> None:
    patterns = np.arange(1 << 16, dtype="<u2")
    bits = patterns.astype("<u4") << 16 | 1 if name == "F32" else patterns
    rows = bits.view(np.uint8).reshape(256, -1)
    with np.errstate(invalid="ignore"):
        expected = np.isfinite(dequantize(rows, BLOCK_TYPES[name]))
    np.testing.assert_array_equal(finite(rows, BLOCK_TYPES[name]), expected.reshape(-1))
    np.testing.assert_array_equal(finite(rows[:, ::-1][:, ::-1][::2], BLOCK_TYPES[name]), expected[::2].reshape(-1))
