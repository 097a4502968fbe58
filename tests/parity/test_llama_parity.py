"""Both backends against transformers on small random Llamas: every variation, prefill and decode, alone and batched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from openherd.engine.backends import make_backend
from openherd.engine.protocols import Backend, KVSpec, Limits
from openherd.kernels.reference_sampler import log_softmax
from tests.parity.batches import Rows, token_batch
from tests.parity.llama_cases import CASES, RECORDED, SEED, prompts
from tests.parity.random_llama import float_source, random_weights

EXPECTED = np.load(Path(__file__).with_name("llama_parity.npz"))
BLOCKS = ((7, 2, 5), (0, 4))  # of the two prompts: neither contiguous nor in order
F32 = NDArray[np.float32]


@pytest.fixture(params=["reference", "native"])
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    backend = make_backend(request.param, 2)
    yield backend
    backend.close()


def load(backend: Backend, name: str) -> list[NDArray[np.int32]]:
    config = CASES[name]
    limits = Limits(max_context=64, max_seqs=2, max_batch_tokens=64, max_logit_rows=64)
    source = float_source(random_weights(config, SEED))
    backend.load(config, source, KVSpec(dtype="f32"), limits, num_blocks=8)
    return prompts(config)


def prefill_alone(backend: Backend, ids: NDArray[np.int32], blocks: tuple[int, ...]) -> F32:
    return backend.logits(backend.forward(token_batch([Rows(ids, 0, blocks)]))).copy()


def assert_expected(name: str, rows: list[F32]) -> None:
    """Logits within 1e-4 and log-probabilities within 1e-3 of transformers in float32."""
    for got, expected in zip(rows, EXPECTED[name], strict=True):
        np.testing.assert_allclose(got[list(RECORDED)], expected, rtol=0, atol=1e-4)
        np.testing.assert_allclose(log_softmax(got[list(RECORDED)]), log_softmax(expected), rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", CASES)
def test_prefill_alone(backend: Backend, name: str) -> None:
    both = load(backend, name)
    assert_expected(name, [prefill_alone(backend, ids, b) for ids, b in zip(both, BLOCKS, strict=True)])


@pytest.mark.parametrize("name", CASES)
def test_prefill_batched(backend: Backend, name: str) -> None:
    first, second = load(backend, name)
    step = backend.forward(token_batch([Rows(first, 0, BLOCKS[0]), Rows(second, 0, BLOCKS[1])]))
    logits = backend.logits(step).copy()
    assert_expected(name, [logits[: len(first)], logits[len(first) :]])
    alone = [prefill_alone(backend, ids, b) for ids, b in zip((first, second), BLOCKS, strict=True)]
    assert np.array_equal(logits, np.concatenate(alone)), "a row's bits depend on its company"


@pytest.mark.parametrize("name", CASES)
def test_decode_beside_a_chunked_prefill(backend: Backend, name: str) -> None:
    """The second prompt token by token, while the first is prefilled in chunks of two."""
    first, second = load(backend, name)
    rows: tuple[list[F32], list[F32]] = ([], [])
    for i, token in enumerate(second):
        sequences = [Rows([token], i, BLOCKS[1])]
        chunk = first[2 * i : 2 * i + 2]
        if len(chunk):
            sequences.append(Rows(chunk, 2 * i, BLOCKS[0]))
        logits = backend.logits(backend.forward(token_batch(sequences))).copy()
        rows[1].append(logits[:1])
        rows[0].append(logits[1:])
    decoded = [np.concatenate(rows[0]), np.concatenate(rows[1])]
    assert len(decoded[0]) == len(first)
    assert_expected(name, decoded)
    alone = [prefill_alone(backend, ids, b) for ids, b in zip((first, second), BLOCKS, strict=True)]
    for got, prefilled in zip(decoded, alone, strict=True):
        assert np.array_equal(got, prefilled), "decode and prefill differ in bits"


def test_recorded_variations_differ() -> None:
    """No variation is inert: each rotary scaling moves the logits by far more than the tolerance."""
    grouped, wide = EXPECTED["grouped"], EXPECTED["llama3"]
    for name in ("linear", "tied", "biases"):
        assert np.abs(EXPECTED[name] - grouped).max() > 0.01
    assert np.abs(EXPECTED["yarn"] - wide).max() > 0.01
