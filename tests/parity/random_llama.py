"""Llama checkpoints of random numbers, made in memory the same way everywhere.

Tests and the scripts that record expected values make equal weights from (config, seed), so no weight is stored.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from openherd.checkpoints.source import Tensor
from openherd.config import ModelConfig
from openherd.quant.types import BLOCK_TYPES

F32 = NDArray[np.float32]


def tensor_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor that the config's checkpoint has, by canonical name; linear maps are [N, K]."""
    c = config
    maps = {
        "self_attn.q_proj": (c.q_dim, c.dim, c.qkv_bias),
        "self_attn.k_proj": (c.kv_dim, c.dim, c.qkv_bias),
        "self_attn.v_proj": (c.kv_dim, c.dim, c.qkv_bias),
        "self_attn.o_proj": (c.dim, c.q_dim, c.o_bias),
        "mlp.gate_proj": (c.ffn_dim, c.dim, c.mlp_bias),
        "mlp.up_proj": (c.ffn_dim, c.dim, c.mlp_bias),
        "mlp.down_proj": (c.dim, c.ffn_dim, c.mlp_bias),
    }
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (c.vocab_size, c.dim)}
    for layer in range(c.n_layers):
        p = f"model.layers.{layer}"
        shapes[f"{p}.input_layernorm.weight"] = (c.dim,)
        shapes[f"{p}.post_attention_layernorm.weight"] = (c.dim,)
        for name, (n, k, biased) in maps.items():
            shapes[f"{p}.{name}.weight"] = (n, k)
            if biased:
                shapes[f"{p}.{name}.bias"] = (n,)
    shapes["model.norm.weight"] = (c.dim,)
    if not c.tied_embeddings:
        shapes["lm_head.weight"] = (c.vocab_size, c.dim)
    return shapes


class RandomUniform:
    """Uniform numbers from PCG64's raw words, which every NumPy release keeps (its distributions may change)."""

    def __init__(self, seed: int) -> None:
        self._words = np.random.PCG64(seed)

    def array(self, shape: tuple[int, ...], *, mean: float = 0.0, deviation: float = 1.0) -> F32:
        words = self._words.random_raw(int(np.prod(shape))) >> np.uint64(40)  # 24 bits: exact in float32
        centred = words.astype(np.float64) / 2**24 - 0.5  # variance 1/12
        return (mean + deviation * np.sqrt(12.0) * centred).reshape(shape).astype(np.float32)

    def ids(self, n: int, vocab_size: int) -> NDArray[np.int32]:
        return (self._words.random_raw(n) % np.uint64(vocab_size)).astype(np.int32)


def random_weights(config: ModelConfig, seed: int) -> dict[str, F32]:
    """Weights by canonical name, scaled so that activations stay near 1 and attention is neither flat nor one-hot."""
    uniform = RandomUniform(seed)
    weights = {}
    for name, shape in tensor_shapes(config).items():
        if name.endswith("norm.weight"):
            weights[name] = uniform.array(shape, mean=1.0, deviation=0.1)
        elif name.endswith(".bias"):
            weights[name] = uniform.array(shape, deviation=0.2)
        elif "embed_tokens" in name:
            weights[name] = uniform.array(shape)
        else:
            weights[name] = uniform.array(shape, deviation=1.5 / np.sqrt(shape[-1]))
    return weights


def float_tensor(name: str, values: F32) -> Tensor:
    """A float32 tensor as a reader would hand it over."""
    rows = np.ascontiguousarray(values.reshape(-1, values.shape[-1])).view(np.uint8)
    return Tensor(name, values.shape, BLOCK_TYPES["F32"], lambda: rows)


def float_source(weights: Mapping[str, F32]) -> dict[str, Tensor]:
    """A TensorSource of float32 tensors."""
    return {name: float_tensor(name, values) for name, values in weights.items()}
