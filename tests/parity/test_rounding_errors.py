"""The tolerances of herd verify are those that ggml's quantisers need, and ours where there is one."""

from __future__ import annotations

import json

import numpy as np
import pytest

from openherd.quant.dequantize import dequantize
from openherd.quant.quantize import quantize
from openherd.quant.types import BLOCK_TYPES
from openherd.workshop.golden.rounding import ROUNDING
from tests.parity.make_rounding_errors import EXPECTED, samples


def test_the_table_is_what_was_measured() -> None:
    measured = json.loads(EXPECTED.read_text(encoding="utf-8"))
    assert measured.keys() | {"F32"} == ROUNDING.keys() == BLOCK_TYPES.keys()
    assert all(ROUNDING[name] == value for name, value in measured.items())


@pytest.mark.parametrize("name", ["F16", "BF16", "Q8_0", "Q4_0", "Q4_1"])
def test_our_quantisers_round_as_much(name: str) -> None:
    worst = 0.0
    for values in samples().values():
        difference = dequantize(quantize(values, BLOCK_TYPES[name]), BLOCK_TYPES[name]) - values
        worst = max(worst, float(np.sqrt(np.square(difference).mean() / np.square(values).mean())))
    assert worst == pytest.approx(ROUNDING[name], rel=0.01)
