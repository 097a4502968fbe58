"""Random LoRA adapters for the small random Llamas."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from openherd.config import ModelConfig
from tests.parity.random_llama import RandomUniform, tensor_shapes

F32 = NDArray[np.float32]
RANK, ALPHA = 3, 12.0  # an odd rank; scale = alpha / rank = 4
SEEDS = (41, 42)


def random_pairs(config: ModelConfig, seed: int) -> dict[str, tuple[F32, F32]]:
    """(A [r, K], B [N, r]) for every linear map of every layer, by the weight's canonical name."""
    uniform = RandomUniform(seed)
    pairs = {}
    for name, shape in tensor_shapes(config).items():
        if name.endswith("_proj.weight"):
            n, k = shape
            a = uniform.array((RANK, k), deviation=1 / np.sqrt(k))
            pairs[name] = a, uniform.array((n, RANK), deviation=0.3 / RANK)
    return pairs
