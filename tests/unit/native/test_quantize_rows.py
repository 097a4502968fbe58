"""The native quantisers give the specification's bytes, on every instruction set and with any number of threads."""

from __future__ import annotations

import numpy as np
import pytest

from openherd import _native
from openherd.quant.dequantize import dequantize
from openherd.quant.quantize_search import FORMATS, search
from openherd.quant.types import BLOCK_TYPES
from tests.unit.quant.blocks_to_quantize import odd_rows, plain_rows


@pytest.fixture(scope="module")
def pools() -> list[_native.ThreadPool]:
    return [_native.ThreadPool(threads) for threads in (1, 3)]


def importance_of(width: int) -> np.ndarray:
    return np.random.default_rng(1).gamma(0.5, 1.0, width).astype(np.float32)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", FORMATS)
def test_same_bytes(name: str, weighted: bool, pools: list[_native.ThreadPool]) -> None:
    block_type = BLOCK_TYPES[name]
    for x in (plain_rows(), odd_rows()):
        importance = importance_of(x.shape[1]) if weighted else None
        expected = search(x, block_type, importance)
        for isa in _native.available_isas():
            for pool in pools:
                blocks, _, _ = _native.quantize_rows(pool, block_type.ggml_id, x, importance, isa=isa)
                np.testing.assert_array_equal(blocks, expected, err_msg=f"{name} {isa} {pool.size}")


@pytest.mark.parametrize("name", FORMATS)
def test_reported_error(name: str, pools: list[_native.ThreadPool]) -> None:
    block_type, x = BLOCK_TYPES[name], plain_rows()
    importance = importance_of(x.shape[1])
    blocks, squared, power = _native.quantize_rows(pools[1], block_type.ggml_id, x, importance)
    error = dequantize(blocks, block_type).astype(np.float64) - x
    # Summed in float32 over a block of at most 32 values, and decoded with another order of products.
    assert squared == pytest.approx(float((importance * error**2).sum()), rel=1e-4)
    assert power == pytest.approx(float((importance * x.astype(np.float64) ** 2).sum()), rel=1e-5)
    assert (squared, power) == _native.quantize_rows(pools[0], block_type.ggml_id, x, importance)[1:]


@pytest.mark.parametrize("n_rows", [1, 2, 15, 17, 33])
def test_groups_that_are_not_full(n_rows: int, pools: list[_native.ThreadPool]) -> None:
    """Blocks are done sixteen at a time, over the ends of rows."""
    for name, width in (("Q4_0", 32), ("Q5_1", 96), ("Q4_K", 256), ("Q6_K", 256)):
        block_type = BLOCK_TYPES[name]
        x = np.random.default_rng(n_rows).standard_normal((n_rows, width), np.float32)
        blocks, _, _ = _native.quantize_rows(pools[1], block_type.ggml_id, x)
        np.testing.assert_array_equal(blocks, search(x, block_type))


def test_no_rows(pools: list[_native.ThreadPool]) -> None:
    blocks, squared, power = _native.quantize_rows(pools[0], 2, np.zeros((0, 32), np.float32))
    assert (blocks.shape, squared, power) == ((0, 18), 0.0, 0.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("name", FORMATS)
def test_numbers_that_cannot_be_held_show_in_the_error(name: str, bad: float, pools: list[_native.ThreadPool]) -> None:
    """Callers refuse by the sums; the core itself must only stay within its arrays."""
    x = np.ones((1, 256), np.float32)
    x[0, 7] = bad
    _, squared, power = _native.quantize_rows(pools[0], BLOCK_TYPES[name].ggml_id, x)
    assert not (np.isfinite(squared) and np.isfinite(power))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((1, np.zeros((1, 32), np.float32)), "no codes"),
        ((999, np.zeros((1, 32), np.float32)), "not supported"),
        ((12, np.zeros((1, 128), np.float32)), "multiple of 256"),
        ((2, np.zeros((1, 0), np.float32)), "multiple of 32"),
        ((2, np.zeros((1, 32), np.float32), np.zeros(31, np.float32)), "each column"),
    ],
)
def test_refusals(arguments: tuple[object, ...], words: str, pools: list[_native.ThreadPool]) -> None:
    with pytest.raises(ValueError, match=words):
        _native.quantize_rows(pools[0], *arguments)  # type: ignore[arg-type]
