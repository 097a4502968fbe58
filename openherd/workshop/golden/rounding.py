"""What rounding to each type changes, and which of two types is the coarser."""

from __future__ import annotations

from collections.abc import Sequence

from openherd.quant.types import BLOCK_TYPES

# Root mean square of what rounding to a type changes, as a share of the weights' own: the greater of normal weights and
# of weights with outliers, by ggml's quantisers (`tests/parity/make_rounding_errors.py`).
ROUNDING = {
    "F32": 0.0, "F16": 0.000208, "BF16": 0.00166, "Q8_0": 0.00676, "Q6_K": 0.0215, "Q5_K": 0.042, "Q5_1": 0.0435,
    "Q5_0": 0.0537, "Q4_K": 0.083, "IQ4_NL": 0.0886, "Q4_1": 0.0898, "Q4_0": 0.108, "MXFP4": 0.126, "Q3_K": 0.177,
    "Q2_K": 0.334,
}  # fmt: skip


def coarsest(*types: str) -> str:
    """Of types in `ROUNDING`."""
    return max(types, key=ROUNDING.__getitem__)


def rounds(type: str, shape: Sequence[int]) -> bool:
    """Whether a tensor of this shape can have been rounded to the type.

    Blocks lie in the rows of matrices; vectors stay floats in every layout, so nothing coarse can be said of a norm.
    """
    length = BLOCK_TYPES[type].block_len if type in BLOCK_TYPES else 0
    return ROUNDING.get(type, 0.0) > 0 and (length == 1 or (len(shape) > 1 and shape[-1] % length == 0))
