"""LoRA on both backends: against peft's recorded logits, against merged weights, and beside rows without an adapter."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from openherd.checkpoints import open_adapter
from openherd.checkpoints.source import Adapter, LoraPair
from openherd.config import ModelConfig
from openherd.engine.backends import make_backend
from openherd.engine.protocols import Backend, KVSpec, Limits
from tests.parity.batches import Rows, token_batch
from tests.parity.llama_cases import CASES, RECORDED, SEED, prompts
from tests.parity.lora_cases import ALPHA, RANK, SEEDS, random_pairs
from tests.parity.random_llama import float_source, float_tensor, random_weights

PEFT = Path(__file__).with_name("lora_peft")
F32 = NDArray[np.float32]


@pytest.fixture(params=["reference", "native"])
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    backend = make_backend(request.param, 2)
    yield backend
    backend.close()


def load(backend: Backend, config: ModelConfig, weights: dict[str, F32]) -> None:
    limits = Limits(max_context=64, max_seqs=4, max_batch_tokens=128, max_logit_rows=128)
    backend.load(config, float_source(weights), KVSpec(dtype="f32"), limits, num_blocks=12)


def adapter(config: ModelConfig, seed: int, names: str = "") -> Adapter:
    """A random adapter of the maps whose name contains `names`."""
    pairs = {
        name: LoraPair(float_tensor(f"{name}.lora_a", a), float_tensor(f"{name}.lora_b", b))
        for name, (a, b) in random_pairs(config, seed).items()
        if names in name
    }
    return Adapter(path=Path("in-memory"), rank=RANK, scale=ALPHA / RANK, pairs=pairs)


def merged(config: ModelConfig, seed: int, names: str = "") -> dict[str, F32]:
    """The base's weights with W + scale B A in place of each adapted W, in float64 and rounded once."""
    weights = random_weights(config, SEED)
    for name, (a, b) in random_pairs(config, seed).items():
        if names in name:
            sum64 = weights[name] + ALPHA / RANK * (b.astype(np.float64) @ a.astype(np.float64))
            weights[name] = sum64.astype(np.float32)
    return weights


def run(backend: Backend, *rows: Rows) -> list[F32]:
    """Logits of each sequence."""
    logits = backend.logits(backend.forward(token_batch(rows))).copy()
    return np.split(logits, np.cumsum([len(r.ids) for r in rows])[:-1])


def test_peft_logits(backend: Backend) -> None:
    """The folder that peft saved, opened as a person's would be."""
    config = CASES["biases"]
    load(backend, config, random_weights(config, SEED))
    loaded = backend.load_adapter(open_adapter(PEFT, config))
    for ids, expected in zip(prompts(config), np.load(PEFT / "logits.npz")["biases"], strict=True):
        (logits,) = run(backend, Rows(ids, 0, (0, 1, 2), adapter=loaded))
        np.testing.assert_allclose(logits[list(RECORDED)], expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("names", ["", "q_proj", "down_proj", "layers.1."])
def test_an_adapter_equals_merged_weights(backend: Backend, names: str) -> None:
    config = CASES["grouped"]
    ids = prompts(config)[0]
    load(backend, config, merged(config, SEEDS[0], names))
    (wanted,) = run(backend, Rows(ids, 0, (0, 1, 2)))
    load(backend, config, random_weights(config, SEED))
    (plain,) = run(backend, Rows(ids, 0, (0, 1, 2)))
    loaded = backend.load_adapter(adapter(config, SEEDS[0], names))
    (adapted,) = run(backend, Rows(ids, 0, (0, 1, 2), adapter=loaded))
    np.testing.assert_allclose(adapted, wanted, rtol=0, atol=1e-4)
    assert np.abs(adapted - plain).max() > 0.01, "the adapter had no effect"


def test_each_sequence_has_its_own_adapter(backend: Backend) -> None:
    """Two adapters and none in one batch: the bits of each are those of running alone."""
    config = CASES["grouped"]
    load(backend, config, random_weights(config, SEED))
    first, second = (backend.load_adapter(adapter(config, seed)) for seed in SEEDS)
    long, short = prompts(config)
    rows = [
        Rows(long, 0, (0, 1, 2), adapter=second),
        Rows(short, 0, (3, 4)),
        Rows(short, 0, (5, 6), adapter=first),
        Rows(short[:7], 0, (7,), adapter=second),
    ]
    together = run(backend, *rows)
    for row, logits in zip(rows, together, strict=True):
        (alone,) = run(backend, row)
        assert np.array_equal(alone, logits)
    assert np.abs(together[1] - together[2]).max() > 0.01
    assert np.abs(together[2][:7] - together[3]).max() > 0.01
