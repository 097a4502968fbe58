"""The oracle's operations by their defining properties; their values are held to transformers in tests/parity."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from openherd.config import ModelConfig
from openherd.engine.model import forward
from openherd.kernels.reference import Reference
from tests.parity.batches import Rows, token_batch
from tests.parity.llama_cases import PLAIN, SEED
from tests.parity.random_llama import RandomUniform, random_weights

F32 = NDArray[np.float32]


def reference(config: ModelConfig, *rows: Rows, fill: float = 0.0) -> Reference:
    """The oracle over a cache of 4 blocks that holds `fill` everywhere."""
    weights = {name: values.astype(np.float64) for name, values in random_weights(config, SEED).items()}
    cache = np.full((4, config.n_layers, 2, 16, config.n_kv_heads, config.head_dim), fill, np.float32)
    return Reference(config, weights.__getitem__, cache, token_batch(rows))


def test_rotation_depends_on_distance_alone() -> None:
    """q at position m times k at position n is a function of m - n (Su et al. 2021, eq. 16)."""
    uniform = RandomUniform(2)
    q, k = (uniform.array((1, PLAIN.head_dim)) for _ in range(2))

    def score(m: int, n: int) -> float:
        rotated = [
            reference(PLAIN, Rows([0], at, (0, 1, 2, 3))).rope(x).astype(np.float64) for x, at in ((q, m), (k, n))
        ]
        return float(np.sum(rotated[0] * rotated[1]))

    assert score(40, 33) == pytest.approx(score(7, 0), abs=1e-5)
    assert abs(score(40, 33) - score(40, 20)) > 1e-3


def test_partial_rotation_leaves_the_rest_of_each_head() -> None:
    config = replace(PLAIN, head_dim=8, rope_dim=4)
    x = RandomUniform(2).array((1, 3 * 8))
    before, after = x.reshape(3, 8), reference(config, Rows([0], 5, (0,))).rope(x).reshape(3, 8)
    assert np.array_equal(after[:, 4:], before[:, 4:])
    assert not np.any(after[:, :4] == before[:, :4])
    np.testing.assert_allclose(np.linalg.norm(after, axis=1), np.linalg.norm(before, axis=1), rtol=1e-6)


def test_attention_reads_no_position_after_its_own() -> None:
    """A cache full of NaN, from which only what was written may reach a result."""
    ids = RandomUniform(4).ids(20, PLAIN.vocab_size)
    dirty = forward(reference(PLAIN, Rows(ids, 0, (3, 1)), fill=np.nan), PLAIN)
    clean = forward(reference(PLAIN, Rows(ids, 0, (3, 1))), PLAIN)
    assert np.array_equal(dirty, clean)


@pytest.mark.filterwarnings("error")
def test_silu_does_not_overflow() -> None:
    gate = np.array([[-3e38, -100.0, 0.0, 100.0, 3e38]], np.float32)
    out = reference(PLAIN, Rows([0], 0, (0,))).gate("silu", gate, np.ones_like(gate))
    assert out.tolist() == [[0.0, pytest.approx(-100 * np.exp(-100)), 0.0, 100.0, float(np.float32(3e38))]]


def test_norm_of_zeros_is_zero() -> None:
    zeros = np.zeros((1, PLAIN.dim), np.float32)
    assert not reference(PLAIN, Rows([0], 0, (0,))).rms_norm(zeros, "model.norm").any()


def test_biases_are_those_the_config_declares() -> None:
    attention = replace(PLAIN, qkv_bias=True)
    assert attention.has_bias("model.layers.0.self_attn.k_proj")
    assert not attention.has_bias("model.layers.0.self_attn.o_proj")
    assert replace(PLAIN, o_bias=True).has_bias("model.layers.0.self_attn.o_proj")
    assert replace(PLAIN, mlp_bias=True).has_bias("model.layers.0.mlp.down_proj")
    assert not replace(PLAIN, mlp_bias=True, qkv_bias=True, o_bias=True).has_bias("lm_head")
