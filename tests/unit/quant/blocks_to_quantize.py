"""Rows for quantisers: plain ones, as weights are, and odd ones."""

from __future__ import annotations

import numpy as np


def plain_rows() -> np.ndarray:
    """[24, 512], normal, each row of its own size."""
    rng = np.random.default_rng(11)
    return rng.standard_normal((24, 512), np.float32) * np.exp2(rng.integers(-6, 3, (24, 1))).astype(np.float32)


def odd_rows() -> np.ndarray:
    """[10, 256]: zeros, a constant, values below any scale, one-sided, an outlier, two values, one value, ..."""
    rng = np.random.default_rng(12)
    x = rng.standard_normal((10, 256), np.float32)
    x[0] = 0
    x[1] = -2.5
    x[2] *= 1e-12
    x[3] = np.abs(x[3])
    x[4] = -np.abs(x[4]) - 3
    x[5, 100] = 4000
    x[6] = np.where(x[6] > 0, 1, -1)
    x[7, 1:] = 0
    x[8] *= 1e4
    x[9, 32:] = 0
    return x
