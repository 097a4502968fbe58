"""Inverse frequencies of rotary position embeddings, for every scaling that Llama-family files declare.

A pair i of a head's rotary dimensions d is turned by position * inverse_frequency[i]; cosines and sines are both
multiplied by the attention scale. All of it is float64: a float32 angle at position 100,000 is off by 0.004.
Not covered: frequencies that change with the running length, and rotations in more than one dimension.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from openherd.config import ModelConfig, RopeScaling
from openherd.errors import UnsupportedError

F64 = NDArray[np.float64]


def rotary_tables(config: ModelConfig) -> list[tuple[F64, float]]:
    """Of most layers, then of local ones if they have their own base: frequencies and attention scale.

    Empty for a model that does not rotate.
    """
    if config.alibi_max_bias:
        return []
    tables = [inverse_frequencies(config)]
    if config.local_rope_theta:
        local = replace(config, rope_theta=config.local_rope_theta, rope_scaling=RopeScaling(), rope_factors=())
        tables.append(inverse_frequencies(local))
    return tables


def for_context(config: ModelConfig, max_context: int) -> ModelConfig:
    """The config with what depends on the longest context settled: which list of longrope's divisors is in use.

    As in the papers' code a context beyond the original takes the long list, but for all its positions and from the
    start: a list that changed with the running length would make a cached key depend on when it was computed.
    """
    scaling = config.rope_scaling
    if scaling.kind != "longrope":
        return config
    factors = scaling.long_factors if max_context > _trained_context(config) else scaling.short_factors
    return replace(config, rope_scaling=replace(scaling, short_factors=factors, long_factors=factors))


def inverse_frequencies(config: ModelConfig) -> tuple[F64, float]:
    """([rotary_dim / 2] radians per position, the attention scale). Raises UnsupportedError when it cannot."""
    d, scaling = config.rotary_dim, config.rope_scaling
    if d % 2 or d > config.head_dim:
        raise UnsupportedError(f"rotary dimension {d} must be even and at most head_dim = {config.head_dim}")
    if config.rope_theta <= 1:
        raise UnsupportedError(f"the base of rotary frequencies must be greater than 1, not {config.rope_theta:g}")
    base = _powers(config.rope_theta, d)
    scale = 1.0
    if scaling.kind == "linear":
        base = base / scaling.factor
    elif scaling.kind == "llama3":
        base = _llama3(base, config)
    elif scaling.kind == "yarn":
        base, scale = _yarn(base, config)
    elif scaling.kind == "longrope":
        base, scale = _longrope(base, config)
    elif scaling.kind != "none":
        raise UnsupportedError(f"rope scaling {scaling.kind!r}; known: none, linear, llama3, yarn, longrope")
    return _divided(base, config), scale


def _powers(theta: float, d: int) -> F64:
    """Su et al. 2021, "RoFormer", eq. 15: theta^(-2i/d), i = 0..d/2-1."""
    powers: F64 = theta ** (-np.arange(0, d, 2, dtype=np.float64) / d)
    return powers


def _llama3(base: F64, config: ModelConfig) -> F64:
    """The rule of Llama 3.1's released code (Meta 2024): by rotations in the trained context.

    Fewer than low_freq_factor rotations: divided by `factor`; more than high_freq_factor: kept; a linear ramp between.
    """
    s = config.rope_scaling
    if s.low_freq_factor >= s.high_freq_factor:
        raise UnsupportedError("rope scaling: low_freq_factor must be less than high_freq_factor")
    rotations = _trained_context(config) * base / (2 * math.pi)
    kept = np.clip((rotations - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor), 0.0, 1.0)
    return kept * base + (1 - kept) * base / s.factor


def _yarn(base: F64, config: ModelConfig) -> tuple[F64, float]:
    """YaRN (Peng et al. 2023, sections 3.2 and 3.4): a ramp over pair numbers, and a temperature on attention.

    As in the authors' code the ramp is linear in the pair's number, between the whole pairs that turn beta_fast and
    beta_slow times in the trained context; the square root of the temperature's inverse scales q and k alike.
    """
    s, d = config.rope_scaling, config.rotary_dim

    def pair_with(rotations: float) -> float:
        """The (fractional) pair that turns so often in the trained context."""
        return d * math.log(_trained_context(config) / (rotations * 2 * math.pi)) / (2 * math.log(config.rope_theta))

    low = max(math.floor(pair_with(s.beta_fast)), 0)
    high = min(math.ceil(pair_with(s.beta_slow)), d - 1)
    width = high - low or 0.001  # one pair on the border: a step, without dividing by 0
    divided = np.clip((np.arange(d // 2) - low) / width, 0.0, 1.0)
    scale = s.attention_factor
    if scale is None:
        scale = 0.1 * math.log(s.factor) + 1.0 if s.factor > 1 else 1.0
    return (1 - divided) * base + divided * base / s.factor, scale


def _longrope(base: F64, config: ModelConfig) -> tuple[F64, float]:
    """LongRoPE (Ding et al. 2024, section 3): divisors found by search; the temperature is Phi-3's.

    Of two lists the short one, unless `for_context` has settled it.
    """
    return base / _checked_factors(config.rope_scaling.short_factors, base), config.rope_scaling.longrope_temperature


def _checked_factors(factors: tuple[float, ...], base: F64) -> F64:
    array = np.asarray(factors, np.float64)
    if array.shape != base.shape or not np.all(np.isfinite(array) & (array > 0)):
        raise UnsupportedError(
            f"rope factors must be {len(base)} positive numbers, one for each pair; the file has {len(factors)}"
        )
    return array


def _divided(base: F64, config: ModelConfig) -> F64:
    """Divisors that a file carries ready-made (GGUF's rope_freqs.weight holds the effect of `llama3` so)."""
    if not config.rope_factors:
        return base
    if config.rope_scaling.kind not in ("none", "linear"):
        raise UnsupportedError(
            f"the file carries rope factors and also declares rope scaling {config.rope_scaling.kind!r}: "
            "which one was trained is not said"
        )
    return base / _checked_factors(config.rope_factors, base)


def _trained_context(config: ModelConfig) -> int:
    return config.rope_scaling.original_max_seq_len or config.max_seq_len
