"""Rotary positions in config.json: `rope_theta` and `rope_scaling`, which newer saves join in `rope_parameters`.

In Gemma 3 parameters differ between layers of full attention and those with a window; read here are the first, and
`local_theta` gives the base of the second. No other family has them by layer.

Source: transformers' `modeling_rope_utils`.
"""

from __future__ import annotations

from collections.abc import Set

from openherd.checkpoints.json_keys import JsonKeys
from openherd.config import RopeScaling
from openherd.errors import FormatError, UnsupportedError

_READ = {
    "none": frozenset[str](),
    "linear": frozenset({"factor"}),
    "dynamic": frozenset({"factor"}),
    "llama3": frozenset({"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}),
    "yarn": frozenset(
        {"factor", "original_max_position_embeddings", "beta_fast", "beta_slow", "attention_factor", "truncate"}
    ),
    "longrope": frozenset(
        {"factor", "original_max_position_embeddings", "attention_factor", "short_factor", "long_factor"}
    ),
}
_FRACTION = "partial_rotary_factor"
_ANY = frozenset({"rope_type", "type", "rope_theta", _FRACTION})
# What early saves wrote for ordinary rotation.
_NAMES = {"default": "none", "su": "longrope"} | {kind: kind for kind in _READ}
_FULL, _LOCAL = "full_attention", "sliding_attention"


def read_rope(
    keys: JsonKeys,
    max_seq_len: int,
    *,
    default_theta: float = 10000.0,
    partly_rotated: bool = False,
    by_layer: bool = False,
    original_context: int | None = None,
) -> tuple[float, RopeScaling]:
    """(base, scaling). `partly_rotated`: the family reads `rotary_fraction` too; `by_layer`: and `local_theta`;
    `original_context`: LongRoPE's, where the family has it beside the scaling.

    Raises UnsupportedError for a kind or a parameter that is not known, FormatError for its value.

    transformers' "dynamic" leaves every frequency alone up to the trained context, which is as far as openherd goes:
    no scaling.
    """
    if "rope_parameters" in keys and "rope_scaling" in keys:
        raise keys.wrong("rope_scaling", "must not stand beside rope_parameters")
    within = "rope_parameters" if "rope_parameters" in keys else "rope_scaling"
    rope = keys.section(within)
    if by_layer and within == "rope_parameters":
        if f"{within}.{_FULL}" not in rope:
            raise FormatError(f"{keys.path}: {within} must have {_FULL} and {_LOCAL} for this family")
        _refuse_others(rope, within, {_FULL, _LOCAL})
        rope, within = rope.section(f"{within}.{_FULL}"), f"{within}.{_FULL}"
    rope.refuse_null(f"{within}.rope_theta")
    theta = rope.positive(f"{within}.rope_theta", keys.positive("rope_theta", default_theta))
    name = rope.text(f"{within}.rope_type", rope.text(f"{within}.type", "default"))
    kind = _NAMES.get(name)
    if kind is None:
        raise UnsupportedError(f"{keys.path}: {within} is of type {name[:40]!r}; openherd supports {', '.join(_NAMES)}")
    _refuse_others(rope, within, _READ[kind] | _ANY)
    if not partly_rotated and rope.positive(f"{within}.{_FRACTION}", 1.0) != 1.0:
        raise UnsupportedError(f"{keys.path}: {within}.{_FRACTION} is not 1; heads of this family turn whole")
    return theta, _scaling(rope, within, kind, max_seq_len, original_context)


def _refuse_others(rope: JsonKeys, within: str, known: Set[str]) -> None:
    for key in rope:
        if key.removeprefix(f"{within}.") not in known:
            raise UnsupportedError(
                f"{rope.path}: openherd does not know the key {key[:80]}, which may change the model"
            )


def _scaling(rope: JsonKeys, within: str, kind: str, max_seq_len: int, original_context: int | None) -> RopeScaling:
    def number(name: str, default: float | None = None) -> float:
        return rope.positive(f"{within}.{name}", default)

    if kind == "linear":
        return RopeScaling("linear", factor=number("factor"))
    if kind == "llama3":
        return RopeScaling(
            "llama3",
            factor=number("factor"),
            original_max_seq_len=rope.whole(f"{within}.original_max_position_embeddings", least=1),
            low_freq_factor=number("low_freq_factor"),
            high_freq_factor=number("high_freq_factor"),
        )
    if kind == "yarn":
        return _yarn(rope, within, max_seq_len)
    if kind == "longrope":
        return _longrope(rope, within, max_seq_len, original_context)
    return RopeScaling()


def _longrope(rope: JsonKeys, within: str, max_seq_len: int, original_context: int | None) -> RopeScaling:
    """Phi-3 gives the original context beside the scaling, where it wins, and leaves the factor to the ratio."""
    name = "original_max_position_embeddings"
    inner = rope.whole(f"{within}.{name}", max_seq_len, least=1)
    original = inner if original_context is None else original_context
    attention = f"{within}.attention_factor"
    return RopeScaling(
        "longrope",
        factor=rope.positive(f"{within}.factor", max_seq_len / original),
        original_max_seq_len=original,
        attention_factor=rope.positive(attention) if attention in rope else None,
        short_factors=rope.positives(f"{within}.short_factor"),
        long_factors=rope.positives(f"{within}.long_factor"),
    )


def rotary_fraction(keys: JsonKeys) -> float:
    """`partial_rotary_factor`, of which newer saves make a rotary parameter."""
    within = "rope_parameters" if "rope_parameters" in keys else "rope_scaling"
    return keys.section(within).positive(f"{within}.{_FRACTION}", keys.positive(_FRACTION, 1.0))


def local_theta(keys: JsonKeys, default: float) -> float:
    """The base of layers with a sliding window. Raises UnsupportedError when they are scaled too."""
    local = keys.section("rope_parameters").section(f"rope_parameters.{_LOCAL}")
    within = f"rope_parameters.{_LOCAL}"
    _refuse_others(local, within, {"rope_type", "rope_theta"})
    if local.text(f"{within}.rope_type", "default") != "default":
        raise UnsupportedError(f"{keys.path}: {within} is scaled; openherd supports only the default there")
    return local.positive(f"{within}.rope_theta", keys.positive("rope_local_base_freq", default))


def _yarn(rope: JsonKeys, within: str, max_seq_len: int) -> RopeScaling:
    factor = rope.positive(f"{within}.factor")
    if factor < 1:
        raise rope.wrong(f"{within}.factor", "must be at least 1 for yarn")
    if not rope.truth(f"{within}.truncate", True):
        raise UnsupportedError(f"{rope.path}: {within}.truncate is False; openherd supports only True")
    attention = f"{within}.attention_factor"
    return RopeScaling(
        "yarn",
        factor=factor,
        original_max_seq_len=rope.whole(f"{within}.original_max_position_embeddings", max_seq_len, least=1),
        beta_fast=rope.positive(f"{within}.beta_fast", 32.0),
        beta_slow=rope.positive(f"{within}.beta_slow", 1.0),
        attention_factor=rope.positive(attention) if attention in rope else None,
    )
