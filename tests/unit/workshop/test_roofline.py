"""What a step costs at least: counted by hand on a small model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench.random_model import LLAMA_3_2_1B, write_model
from openherd.checkpoints import open_checkpoint
from openherd.workshop.bench.bounds import Bounds
from openherd.workshop.bench.report import Measurement
from openherd.workshop.bench.roofline import ModelCost, Rates

SMALL = replace(LLAMA_3_2_1B, dim=256, n_layers=2, n_heads=4, n_kv_heads=2, ffn_dim=512, vocab_size=1024)


@pytest.fixture
def cost(tmp_path: Path) -> ModelCost:
    write_model(tmp_path / "random.gguf", "Q4_0", config=SMALL)
    return ModelCost.of(open_checkpoint(tmp_path / "random.gguf"))


def test_weights_are_counted_once_and_the_tied_embedding_as_the_head(cost: ModelCost) -> None:
    per_layer = 256 * 256 + 2 * 128 * 256 + 256 * 256 + 3 * 512 * 256
    assert cost.layer_products == 2 * per_layer
    assert cost.tail_products == 256 * 256 + 3 * 512 * 256
    assert cost.head_products == 1024 * 256
    norms = (2 * 2 + 1) * 256 * 4
    assert cost.layer_bytes == 2 * per_layer // 32 * 18 + norms
    assert cost.head_bytes == 1024 * 210  # one super-block of Q6_K a row
    assert cost.kv_bytes == 2 * 2 * 128 * 2
    assert cost.is_integer


def test_decoding_is_bound_by_bytes_and_many_rows_by_products(cost: ModelCost) -> None:
    rates = Rates(read=1e9, multiply=1e12)
    assert cost.decode_limit(rates, 1, 0) == pytest.approx(1e9 / cost.weight_bytes)
    assert cost.decode_limit(rates, 1, 1000) == pytest.approx(1e9 / (cost.weight_bytes + 1000 * cost.kv_bytes))
    products = cost.layer_products + cost.head_products
    assert cost.decode_limit(Rates(1e12, 1e9), 32, 0) == pytest.approx(1e9 / products)
    assert cost.prefill_limit(Rates(1e12, 1e9), 512, 512) == pytest.approx(
        512e9 / (512 * (cost.layer_products - cost.tail_products) + cost.tail_products + cost.head_products)
    )


def test_float_weights_have_no_int8_limit(cost: ModelCost) -> None:
    floats = replace(cost, is_integer=False)
    assert floats.prefill_limit(Rates(1e9, 1e12), 512, 512) is None
    assert floats.decode_limit(Rates(1e9, 1.0), 1, 0) == pytest.approx(1e9 / floats.weight_bytes)


def test_a_share_is_of_a_greatest_or_of_a_least(cost: ModelCost) -> None:
    bounds = Bounds(cost, Rates(1e9, 1e12), file_bytes=10**6, interpreter_s=0.01)
    speed = Measurement.of("decode", [100.0, 300.0, 200.0], bounds.of("decode"))
    assert (speed.value, speed.low, speed.high) == (200.0, 100.0, 300.0)
    assert speed.spread == pytest.approx(0.5)
    assert speed.limit is not None
    assert speed.of_limit == pytest.approx(200.0 / speed.limit)
    start = Measurement.of("cold_start", [0.022], bounds.of("cold_start"))
    assert start.limit == pytest.approx(0.011)
    assert start.of_limit == pytest.approx(0.5)
    assert Measurement.of("read_1_thread", [1.0], bounds.of("read_1_thread")).of_limit is None
