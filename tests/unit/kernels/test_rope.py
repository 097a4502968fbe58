"""Rotary frequencies: values recorded from transformers, and the properties each scaling is made for."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from openherd.config import ModelConfig, RopeScaling
from openherd.errors import UnsupportedError
from openherd.kernels.rope import inverse_frequencies

EXPECTED = json.loads((Path(__file__).parents[2] / "parity" / "rope_expected.json").read_text())
PLAIN = ModelConfig("llama", 256, 1, 4, 4, EXPECTED["head_dim"], 256, 64, EXPECTED["max_seq_len"])


def scaling(case: dict[str, Any]) -> RopeScaling:
    names = ("low_freq_factor", "high_freq_factor", "beta_fast", "beta_slow", "attention_factor")
    return RopeScaling(
        kind=case["rope_type"],
        factor=case["factor"],
        original_max_seq_len=case.get("original_max_position_embeddings", 0),
        **{name: case[name] for name in names if name in case},
    )


@pytest.mark.parametrize("case", EXPECTED["cases"], ids=lambda case: f"{case['rope_type']}-{case['factor']:g}")
def test_transformers_frequencies(case: dict[str, Any]) -> None:
    config = replace(PLAIN, rope_theta=case["rope_theta"], rope_scaling=scaling(case))
    frequencies, scale = inverse_frequencies(config)
    # transformers works in float32: a few roundings of 6e-8 each, more where a ramp subtracts
    np.testing.assert_allclose(frequencies, case["inverse_frequencies"], rtol=2e-6)
    assert scale == pytest.approx(case["attention_scale"], rel=1e-12)


def test_unscaled_frequencies_are_powers_of_theta() -> None:
    frequencies, scale = inverse_frequencies(replace(PLAIN, rope_theta=16.0, head_dim=8))
    np.testing.assert_allclose(frequencies, [1, 1 / 2, 1 / 4, 1 / 8], rtol=1e-15)
    assert scale == 1.0


def test_partial_rotation_has_fewer_pairs() -> None:
    frequencies, _ = inverse_frequencies(replace(PLAIN, rope_dim=16))
    np.testing.assert_allclose(frequencies, 10000.0 ** (-np.arange(8) / 8), rtol=1e-15)


def test_ready_made_divisors_equal_the_scaling_they_stand_for() -> None:
    scaled = replace(PLAIN, rope_scaling=RopeScaling("llama3", factor=8.0, original_max_seq_len=512))
    wanted, _ = inverse_frequencies(scaled)
    plain, _ = inverse_frequencies(PLAIN)
    carried, _ = inverse_frequencies(replace(PLAIN, rope_factors=tuple(plain / wanted)))
    np.testing.assert_allclose(carried, wanted, rtol=1e-14)
    assert not np.allclose(wanted, plain)


def test_yarn_keeps_fast_pairs_and_divides_slow_ones() -> None:
    config = replace(PLAIN, rope_scaling=RopeScaling("yarn", factor=4.0, original_max_seq_len=2048))
    plain, _ = inverse_frequencies(PLAIN)
    stretched, scale = inverse_frequencies(config)
    ratio = plain / stretched
    assert ratio[0] == 1.0
    assert ratio[-1] == pytest.approx(4.0)
    assert np.all(np.diff(ratio) >= 0)
    assert scale == pytest.approx(0.1 * np.log(4) + 1)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"rope_factors": (1.0,) * 31}, "must be 32 positive numbers"),
        ({"rope_factors": (1.0,) * 31 + (0.0,)}, "must be 32 positive numbers"),
        ({"rope_factors": (1.0,) * 31 + (float("nan"),)}, "must be 32 positive numbers"),
        ({"rope_dim": 7}, "must be even"),
        ({"rope_dim": 128}, "at most head_dim"),
        ({"rope_factors": (1.0,) * 32, "rope_scaling": RopeScaling("yarn", 2.0)}, "also declares rope scaling"),
        ({"rope_scaling": RopeScaling("longrope", 2.0)}, "must be 32 positive numbers"),
    ],
)
def test_what_cannot_be_honoured_is_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(UnsupportedError, match=says):
        inverse_frequencies(replace(PLAIN, **change))
