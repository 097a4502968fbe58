"""What files say in several ways (a base, scalings, ready-made divisors) and must mean the same: the rotation."""

from __future__ import annotations

from openherd.config import ModelConfig
from openherd.errors import HerdError
from openherd.kernels.rope import for_context, inverse_frequencies

MOST_CONTEXT = 2**31


def rotation(config: ModelConfig) -> tuple[float, ...]:
    """The inverse frequency of each pair, then the attention scale; empty where the config alone does not decide."""
    # Of longrope's two lists each context has one; all other configs are the same for both.
    settled = dict.fromkeys(for_context(config, context) for context in (1, MOST_CONTEXT))
    try:
        tables = [inverse_frequencies(one) for one in settled]
    except (HerdError, ArithmeticError):
        return ()
    return tuple(float(f"{value:.9g}") for frequencies, scale in tables for value in (*frequencies, scale))
