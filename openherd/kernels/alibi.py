"""Slopes of linear attention biases (Press et al. 2022, "Train Short, Test Long", section 3).

A query at position p scores a key at position j with -slope * (p - j) added, a slope for each head.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from openherd.config import ModelConfig


def alibi_slopes(config: ModelConfig) -> NDArray[np.float64]:
    """[H]. For n heads, a power of two, 2^(-b i / n) with i = 1..n and b the largest exponent (8 in the paper).

    Otherwise those of the next lower power of two, and then every second one of the next higher power.
    """
    n_heads, most = config.n_heads, config.alibi_max_bias
    lower = 2 ** math.floor(math.log2(n_heads))
    slopes = 2.0 ** (-most * np.arange(1, lower + 1) / lower)
    between = 2.0 ** (-most * np.arange(1, 2 * lower, 2) / (2 * lower))
    return config.alibi_scale * np.concatenate([slopes, between])[:n_heads]
