"""Every tensor type on every instruction set of this machine against float64, and its bits against themselves."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest

from openherd import _native
from openherd.quant.dequantize import dequantize
from openherd.quant.types import BLOCK_TYPES, BlockType
from tests.unit.native.weight_blocks import ALL_TYPES, FLOAT_TYPES, oracle, quantized_activations, random_rows

# Around the kernels' 2, 4, 8 and 16 columns and their panel of 64.
BATCHES = (1, 2, 3, 5, 8, 9, 16, 17, 25, 33, 64, 100)

every_type = pytest.mark.parametrize("type", ALL_TYPES, ids=lambda t: t.name)
every_isa = pytest.mark.parametrize("isa", _native.available_isas())


def packed(type: BlockType, n_rows: int, n_cols: int) -> tuple[np.ndarray, _native.PackedWeight]:
    rows = random_rows(type, n_rows, n_cols)
    return rows, _native.PackedWeight(type.ggml_id, rows, n_cols)


def activations(n_rows: int, n_cols: int, seed: int = 1) -> np.ndarray:
    """Normal values whose size differs from block to block, as those of models do."""
    rng = np.random.default_rng([seed, n_rows, n_cols])
    sizes = np.exp(rng.standard_normal((n_rows, -(-n_cols // 32))) * 2)
    return (rng.standard_normal((n_rows, n_cols)) * np.repeat(sizes, 32, axis=1)[:, :n_cols]).astype(np.float32)


def bits(x: np.ndarray) -> np.ndarray:
    return x.view(np.uint32)


def widths(type: BlockType) -> tuple[int, ...]:
    """One block, several, and many; for float types also widths that no vector divides."""
    return (1, 37, 576) if type.block_len == 1 else (type.block_len, 3 * type.block_len, 2304)


@every_type
@every_isa
@pytest.mark.parametrize("n_rows", [1, 7, 16, 17, 33])
def test_result_is_within_the_derived_bound_of_float64(type: BlockType, isa: str, n_rows: int) -> None:
    for n_cols in widths(type):
        rows, weight = packed(type, n_rows, n_cols)
        for n_batch in (1, 3, 9, 27):
            x = activations(n_batch, n_cols)
            exact, bound = oracle(type, rows, x, isa)
            y = weight.linear(x, isa=isa)
            assert y.shape == (n_batch, n_rows)
            assert (np.abs(y - exact) <= bound).all(), f"K = {n_cols}, T = {n_batch}"


@every_type
@every_isa
def test_bits_do_not_depend_on_the_batch_or_the_split_into_tiles(type: BlockType, isa: str) -> None:
    n_cols = 3 * max(type.block_len, 19)
    _, weight = packed(type, 83, n_cols)  # six tiles, the last one of three rows
    x = activations(max(BATCHES), n_cols)
    alone = np.concatenate([weight.linear(x[t : t + 1], isa=isa) for t in range(len(x))])
    for n_batch in BATCHES:
        for tiles_at_once in (1, 4, 6):
            y = weight.linear(x[:n_batch], isa=isa, tiles_at_once=tiles_at_once)
            assert (bits(y) == bits(alone[:n_batch])).all(), f"T = {n_batch}, {tiles_at_once} tiles at once"


@every_type
def test_instruction_sets_agree_within_twice_the_bound(type: BlockType) -> None:
    n_cols = 2304
    rows, weight = packed(type, 33, n_cols)
    x = activations(4, n_cols)
    isas = [isa for isa in _native.available_isas() if isa != "amx"]  # whose activations are other integers
    _, bound = oracle(type, rows, x, isas[0])
    results = [weight.linear(x, isa=isa).astype(np.float64) for isa in isas]
    assert len(results) >= 1
    for a, b in pairwise(results):
        assert (np.abs(a - b) <= 2 * bound).all()


@every_type
def test_rows_read_back_are_the_specification_bit_for_bit(type: BlockType) -> None:
    rows, weight = packed(type, 35, 512)
    assert (bits(weight.dequantize_rows(0, 35)) == bits(dequantize(rows, type))).all()
    assert (bits(weight.dequantize_rows(17, 18)) == bits(dequantize(rows[17:18], type))).all()


@every_type
def test_rows_of_arbitrary_bytes_read_back_as_specified(type: BlockType) -> None:
    n_cols = max(512, type.block_len)
    rows = np.random.default_rng(5).integers(0, 256, (64, type.row_bytes(n_cols)), dtype=np.uint8)
    with np.errstate(all="ignore"):
        expected = dequantize(rows, type)
    values = _native.PackedWeight(type.ggml_id, rows, n_cols).dequantize_rows(0, 64)
    nan = np.isnan(expected)
    assert (np.isnan(values) == nan).all()
    assert (bits(values)[~nan] == bits(expected)[~nan]).all()


@every_type
@pytest.mark.parametrize("shape", [(576, 1536), (192, 512), (49152, 768), (16, 256)])
def test_memory_stays_near_the_size_in_the_file(type: BlockType, shape: tuple[int, int]) -> None:
    n_rows, n_cols = shape
    in_file = n_rows * type.row_bytes(n_cols)
    assert _native.packed_bytes(type.ggml_id, n_rows, n_cols) <= 1.15 * in_file


def test_nbytes_is_what_packed_bytes_foretells() -> None:
    for type in ALL_TYPES:
        _, weight = packed(type, 33, 512)
        assert weight.nbytes == _native.packed_bytes(type.ggml_id, 33, 512)
        assert weight.shape == (33, 512)


@every_isa
@pytest.mark.parametrize("name", ["F32", "Q4_1"])
@pytest.mark.parametrize("n_rows", [16, 21])
def test_bias_is_added_before_the_residual(isa: str, name: str, n_rows: int) -> None:
    _, weight = packed(BLOCK_TYPES[name], n_rows, 64)
    x = activations(5, 64)
    rng = np.random.default_rng(2)
    # A residual far larger than the rest shows the order: (y + bias) + residual rounds otherwise than
    # y + (bias + residual).
    bias = rng.standard_normal(n_rows).astype(np.float32)
    residual = (rng.standard_normal((5, n_rows)) * 1e4).astype(np.float32)
    y = weight.linear(x, isa=isa)
    both = weight.linear(x, isa=isa, bias=bias, residual=residual)
    assert (bits(both) == bits(residual + (y + bias))).all()
    assert (bits(both) != bits((residual + bias) + y)).any()
    assert (bits(weight.linear(x, isa=isa, bias=bias)) == bits(y + bias)).all()
    assert (bits(weight.linear(x, isa=isa, residual=residual)) == bits(residual + y)).all()


@every_isa
def test_activations_are_quantized_as_specified(isa: str) -> None:
    x = activations(40, 160)
    x[3, 32:64] = 0
    x[4, :32] *= np.float32(2.0**-125)  # so small that 16256 / absmax would overflow: a block of zeros
    x[5, :8] = [127, 0.5, 1.5, 2.5, -0.5, -1.5, -126.5, 126.5]  # a coarse block with steps of 1: ties
    x[5, 8:32], x[5, 32:] = 100, 200  # others stand out
    x[6, :8] = [16256, 0.5, 1.5, 2.5, -0.5, -1.5, -16255.5, 63.5]  # a fine one
    x[6, 8:] = 1
    x[7, :8] = [2032, 0.5, 1.5, 2.5, -0.5, -1.5, -2031.5, 7.5]  # 12 bits with steps of 1
    codes, scales = _native.quantize_activations(x, isa=isa)
    expected_codes, expected_scales = quantized_activations(x, isa)
    if isa == "amx":
        assert expected_codes[7, :8].tolist() == [2032, 0, 2, 2, 0, -2, -2032, 8]
    else:
        assert (expected_codes[5, :8] / 128).tolist() == [127, 0, 2, 2, 0, -2, -126, 126]
        assert expected_codes[6, :8].tolist() == [16256, 0, 2, 2, 0, -2, -16256, 64]
    assert (codes == expected_codes).all()
    assert (bits(scales) == bits(expected_scales)).all()


@every_isa
@pytest.mark.parametrize("n_cols", [1, 15, 16, 17, 31, 33])
def test_last_block_of_activations_is_filled_with_zeros(isa: str, n_cols: int) -> None:
    x = activations(2, n_cols)
    whole = np.zeros((2, -(-n_cols // 32) * 32), np.float32)
    whole[:, :n_cols] = x
    for a, b in zip(
        _native.quantize_activations(x, isa=isa), _native.quantize_activations(whole, isa=isa), strict=True
    ):
        assert (a == b).all()


@every_type
@every_isa
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_a_non_finite_activation_spoils_its_own_row_only(type: BlockType, isa: str, poison: float) -> None:
    _, weight = packed(type, 17, 512)
    x = activations(9, 512)
    clean = weight.linear(x, isa=isa)
    x[4, 300] = poison
    y = weight.linear(x, isa=isa)
    assert not np.isfinite(y[4]).any()
    others = [t for t in range(9) if t != 4]
    assert (bits(y[others]) == bits(clean[others])).all()


@every_isa
@pytest.mark.parametrize("name", ["Q4_0", "Q4_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL"])
@pytest.mark.parametrize("half", [0x7E00, 0x7C00, 0xFC00])  # NaN, infinity, minus infinity
def test_a_non_finite_scale_spoils_its_own_output_only(isa: str, name: str, half: int) -> None:
    type = BLOCK_TYPES[name]
    rows = random_rows(type, 20, 512)
    x = activations(9, 512)
    x[:, 100:200] *= 8  # some blocks of 15 bits, and others
    clean = _native.PackedWeight(type.ggml_id, rows, 512).linear(x, isa=isa)
    at = {"Q2_K": 80, "Q3_K": 108, "Q6_K": 208}.get(name, 0)
    rows[18, at : at + 2] = np.array([half], np.uint16).view(np.uint8)
    weight = _native.PackedWeight(type.ggml_id, rows, 512)
    y = weight.linear(x, isa=isa)
    assert not np.isfinite(y[:, 18]).any()
    others = [n for n in range(20) if n != 18]
    assert (bits(y[:, others]) == bits(clean[:, others])).all()
    for n in range(1, 9):
        np.testing.assert_array_equal(weight.linear(x[:n], isa=isa), y[:n], err_msg=f"{n} rows at once")


def test_an_empty_batch_gives_an_empty_result() -> None:
    _, weight = packed(BLOCK_TYPES["Q4_1"], 17, 64)
    assert weight.linear(np.empty((0, 64), np.float32)).shape == (0, 17)


@pytest.mark.parametrize("type", [t for t in ALL_TYPES if t.name not in FLOAT_TYPES], ids=lambda t: t.name)
def test_a_row_that_ends_inside_a_block_is_refused(type: BlockType) -> None:
    with pytest.raises(ValueError, match=f"{type.name} rows hold a multiple of {type.block_len} values, not 33"):
        _native.PackedWeight(type.ggml_id, np.zeros((1, 64), np.uint8), 33)


def test_sizes_are_checked_before_they_are_believed() -> None:
    q4_1 = BLOCK_TYPES["Q4_1"].ggml_id
    with pytest.raises(ValueError, match="rows of 64 values take 40 bytes, not 39"):
        _native.PackedWeight(q4_1, np.zeros((2, 39), np.uint8), 64)
    with pytest.raises(ValueError, match="at least one row"):
        _native.PackedWeight(q4_1, np.zeros((0, 40), np.uint8), 64)
    with pytest.raises(ValueError, match="at least one row"):
        _native.PackedWeight(q4_1, np.zeros((1, 40), np.uint8), -64)
    with pytest.raises(ValueError, match="tensor type 99 is not supported"):
        _native.PackedWeight(99, np.zeros((1, 40), np.uint8), 64)
    for n_rows, n_cols in [(2**62, 32), (1, 2**62), (2**31, 2**31), (2**63 - 1, 2**63 - 32)]:
        with pytest.raises(ValueError, match="does not fit"):
            _native.packed_bytes(q4_1, n_rows, n_cols)


def test_arguments_of_linear_are_checked() -> None:
    _, weight = packed(BLOCK_TYPES["F32"], 17, 64)
    x = activations(2, 64)
    with pytest.raises(ValueError, match="differ in K"):
        weight.linear(activations(2, 65))
    with pytest.raises(ValueError, match="bias needs N values"):
        weight.linear(x, bias=np.zeros(16, np.float32))
    with pytest.raises(ValueError, match="residual needs the shape"):
        weight.linear(x, residual=np.zeros((2, 16), np.float32))
    with pytest.raises(ValueError, match="must be positive"):
        weight.linear(x, tiles_at_once=0)
    with pytest.raises(ValueError, match="outside the weight"):
        weight.dequantize_rows(0, 18)


def default_isa_with(name: str) -> subprocess.CompletedProcess[str]:
    code = "from openherd import _native; print(_native.default_isa())"
    env = {**os.environ, "OPENHERD_ISA": name}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)


def test_the_environment_forces_an_instruction_set() -> None:
    for isa in _native.available_isas():
        assert default_isa_with(isa).stdout.strip() == isa
    assert default_isa_with("").stdout.strip() == _native.available_isas()[0]


def test_an_unknown_instruction_set_is_an_error_that_lists_the_available_ones() -> None:
    listed = ", ".join(_native.available_isas())
    with pytest.raises(ValueError, match=f"'sse9' is not available here; choose one of: {listed}"):
        packed(BLOCK_TYPES["F32"], 1, 1)[1].linear(np.ones((1, 1), np.float32), isa="sse9")
    result = default_isa_with("sse9")
    assert result.returncode != 0
    assert f"choose one of: {listed}" in result.stderr
