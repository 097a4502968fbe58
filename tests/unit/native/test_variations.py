"""The variations that families declare, on the native core: against the oracle, and the same bits however rows come."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from openherd.checkpoints.required_tensors import required_tensors
from openherd.checkpoints.source import Tensor
from openherd.config import ModelConfig, RopeScaling
from openherd.engine.native_backend import NativeBackend
from openherd.engine.protocols import Backend, KVSpec, Limits
from openherd.engine.reference_backend import ReferenceBackend
from openherd.quant.quantize import quantize
from openherd.quant.types import BLOCK_TYPES
from tests.parity.family_cases import family_weights
from tests.parity.random_llama import RandomUniform, float_source, float_tensor
from tests.unit.native.native_models import batch_of

BASE = ModelConfig("llama", 64, 3, 4, 2, 16, 96, 101, 512)
LAYER = replace(BASE, norm="layer", activation="gelu", gated=False)
CONFIGS = {
    "query-key norm": replace(BASE, qk_norm=True),
    "norms on both sides": replace(BASE, post_norms=True, embedding_scale=8.0, activation="gelu_tanh"),
    "layer norm": LAYER,
    "layer norm with bias": replace(LAYER, norm_bias=True, qkv_bias=True, o_bias=True, mlp_bias=True),
    "odd width": replace(LAYER, dim=39, n_heads=3, n_kv_heads=1, head_dim=13, ffn_dim=53, alibi_max_bias=8.0),
    "gated gelu": replace(BASE, activation="gelu"),
    "ungated silu": replace(BASE, gated=False),
    "one norm, halves side by side": replace(LAYER, norm_bias=True, parallel_norms=1, n_kv_heads=1),
    "two norms, halves side by side": replace(LAYER, norm_bias=True, parallel_norms=2),
    "rotated in part": replace(BASE, rope_dim=6),
    "layers without rotation": replace(BASE, no_rope_every=2),
    "short window": replace(BASE, sliding_window=5),
    "window over a tile": replace(BASE, sliding_window=70),
    "every second layer in full": replace(BASE, sliding_window=20, full_attention_every=2, local_rope_theta=100.0),
    "caps": replace(BASE, attention_softcap=2.0, logit_softcap=3.0, attention_scale=0.9, sliding_window=33),
    "alibi": replace(BASE, alibi_max_bias=8.0, alibi_scale=0.25),
    "alibi of 6 heads, clipped": replace(BASE, n_heads=6, n_kv_heads=6, alibi_max_bias=6.0, clip_qkv=0.8),
    "heads of 256": replace(BASE, n_heads=2, n_kv_heads=1, head_dim=256, sliding_window=40, full_attention_every=3),
    "71 heads, one of keys": replace(LAYER, n_heads=71, n_kv_heads=1, head_dim=8, norm_bias=True, parallel_norms=1),
    "scaled logits": replace(BASE, logit_scale=0.3, tied_embeddings=True),
    "experts": replace(BASE, n_experts=5, n_experts_per_token=2),
    "one expert a row": replace(BASE, n_experts=3, n_experts_per_token=1),
    "longrope": replace(
        BASE,
        rope_scaling=RopeScaling(
            "longrope", 4.0, 128, short_factors=tuple(np.arange(8) + 1.0), long_factors=tuple(np.arange(8) + 2.0)
        ),
    ),
}
BLOCKS = list(range(40, 72))
PROMPT = RandomUniform(5).ids(200, 101).tolist()
SPLITS = [1, 33, 63, 64, 3, 1, 1, 34]


def weights_of(config: ModelConfig) -> dict[str, Tensor]:
    return dict(float_source(family_weights(dict(required_tensors(config)))))


def loaded(backend: Backend, config: ModelConfig, weights: dict[str, Tensor], kv: str = "f32") -> Backend:
    spec = KVSpec("f16" if kv == "f16" else "f32")
    backend.load(config, weights, spec, Limits(512, 4, 256, 256), 128)
    return backend


def logits(backend: Backend, ids: list[int], start: int = 0) -> np.ndarray:
    return backend.logits(backend.forward(batch_of([(ids, start, BLOCKS)]))).copy()


@pytest.mark.parametrize("name", CONFIGS)
def test_the_core_says_what_the_oracle_says(name: str) -> None:
    config = CONFIGS[name]
    weights = weights_of(config)
    expected = logits(loaded(ReferenceBackend(), config, weights), PROMPT)
    actual = logits(loaded(NativeBackend(2), config, weights), PROMPT)
    np.testing.assert_allclose(actual, expected, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize("kv", ["f16", "f32"])
@pytest.mark.parametrize("name", CONFIGS)
def test_chunks_and_threads_do_not_change_a_bit(name: str, kv: str) -> None:
    """One long sequence whose tiles up to five threads share, in chunks down to single rows."""
    config = CONFIGS[name]
    weights = weights_of(config)
    whole = logits(loaded(NativeBackend(1), config, weights, kv), PROMPT)
    for threads in (1, 2, 5):
        backend = loaded(NativeBackend(threads), config, weights, kv)
        start, rows = 0, []
        for size in SPLITS:
            rows.append(logits(backend, PROMPT[start : start + size], start))
            start += size
        assert np.concatenate(rows).tobytes() == whole.tobytes()


def test_every_variation_is_felt() -> None:
    """None is inert: each moves the logits of the plain model, whose tensors it shares, by far more than rounding."""
    plain = logits(loaded(NativeBackend(1), BASE, weights_of(BASE)), PROMPT)
    shapes = dict(required_tensors(BASE))
    alike = [config for config in CONFIGS.values() if dict(required_tensors(config)) == shapes]
    assert len(alike) > 6
    for config in alike:
        moved = np.abs(logits(loaded(NativeBackend(1), config, weights_of(config)), PROMPT) - plain).max()
        assert moved > 0.01, config


@pytest.mark.parametrize("name", ["experts", "two norms, halves side by side", "layer norm"])
def test_quantised_weights_stay_within_the_rounding_of_activations(name: str) -> None:
    config = CONFIGS[name]
    values = family_weights(dict(required_tensors(config)))
    weights = {key: _quantised(key, v) if v.ndim == 2 else float_tensor(key, v) for key, v in values.items()}
    if name == "experts":  # a near tie may fall to another expert when activations are rounded: keep the router exact
        weights |= {key: float_tensor(key, v) for key, v in values.items() if key.endswith("moe.gate.weight")}
    expected = logits(loaded(ReferenceBackend(), config, weights), PROMPT[:40])
    error = logits(loaded(NativeBackend(2), config, weights), PROMPT[:40]) - expected
    assert np.median(np.sqrt(np.mean(error**2, axis=1))) < 0.05 * np.std(expected)


def _quantised(name: str, values: np.ndarray) -> Tensor:
    rows = quantize(values, BLOCK_TYPES["Q8_0"])
    return Tensor(name, values.shape, BLOCK_TYPES["Q8_0"], lambda: rows)


def test_equal_router_logits_go_to_the_lowest_experts() -> None:
    """A router of zeros gives every expert the same logit: the first two share each row, as if there were no others."""
    config = replace(BASE, n_experts=4, n_experts_per_token=2)
    values = family_weights(dict(required_tensors(config)))
    for key in [key for key in values if key.endswith("moe.gate.weight")]:
        values[key] = np.zeros_like(values[key])
    two = replace(config, n_experts=2)
    fewer = {key: v for key, v in values.items() if ".experts.2." not in key and ".experts.3." not in key}
    for key in [key for key in fewer if key.endswith("moe.gate.weight")]:
        fewer[key] = fewer[key][:2]
    for backend in (NativeBackend, ReferenceBackend):
        four_experts = logits(loaded(backend(), config, dict(float_source(values))), PROMPT[:20])
        two_experts = logits(loaded(backend(), two, dict(float_source(fewer))), PROMPT[:20])
        assert four_experts.tobytes() == two_experts.tobytes()


def test_what_lies_before_a_window_is_not_seen() -> None:
    """Garbage in blocks that every layer's window has left behind changes nothing."""
    config = replace(BASE, n_layers=1, sliding_window=16)
    backend = loaded(NativeBackend(2), config, weights_of(config))
    logits(backend, PROMPT[:150])
    clean = logits(backend, PROMPT[150:160], 150)
    old = np.array(BLOCKS[:8], np.int32)  # positions 0 to 127
    poison = np.full(backend.read_blocks(0, old).shape, 0x7E, np.uint8)  # 8e37 in float32
    backend.write_blocks(0, old, poison)
    assert logits(backend, PROMPT[150:160], 150).tobytes() == clean.tobytes()


@pytest.mark.parametrize("name", CONFIGS)
def test_rows_whose_logits_are_wanted_have_the_bits_of_all_rows(name: str) -> None:
    """Behind the last attention the others are not computed."""
    config = CONFIGS[name]
    backend = loaded(NativeBackend(2), config, weights_of(config))
    whole = logits(backend, PROMPT)
    for rows in ([3, 39, 49, 170], [199], list(range(40, 90))):
        step = backend.forward(batch_of([(PROMPT, 0, BLOCKS)], logit_rows=rows))
        assert np.array_equal(backend.logits(step), whole[rows])
