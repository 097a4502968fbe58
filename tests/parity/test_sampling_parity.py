"""The native sampler against the float64 oracle, on the same logits: the same tokens, the same reported logprobs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from openherd.engine.native_backend import NativeBackend
from openherd.engine.protocols import KVSpec, Limits, Sampled, SamplePlan, Step
from openherd.engine.reference_backend import ReferenceBackend, ReferenceStep
from tests.parity.batches import Rows, token_batch
from tests.parity.llama_cases import PLAIN
from tests.parity.random_llama import RandomUniform, float_source, random_weights
from tests.parity.sample_plans import random_plan

CONFIG = replace(PLAIN, vocab_size=3001)  # no multiple of a vector or of a mask's word
SOURCE = float_source(random_weights(CONFIG, 5))
LIMITS = Limits(max_context=32, max_seqs=1, max_batch_tokens=32, max_logit_rows=32)
N = 64  # entries in a plan


@pytest.fixture(scope="module")
def native() -> Iterator[tuple[NativeBackend, Step]]:
    """A native step of 32 logit rows."""
    backend = NativeBackend(2)
    backend.load(CONFIG, SOURCE, KVSpec(), LIMITS, num_blocks=2)
    step = backend.forward(token_batch([Rows(RandomUniform(3).ids(32, CONFIG.vocab_size), 0, (0, 1))]))
    yield backend, step
    backend.close()


@pytest.fixture(scope="module")
def oracle() -> ReferenceBackend:
    backend = ReferenceBackend()
    backend.load(CONFIG, SOURCE, KVSpec(), LIMITS, num_blocks=2)
    return backend


def both(native: tuple[NativeBackend, Step], oracle: ReferenceBackend, plan: SamplePlan) -> tuple[Sampled, Sampled]:
    """What each draws from the native step's logits."""
    backend, step = native
    return backend.sample(step, plan), oracle.sample(ReferenceStep(backend.logits(step).copy(), ()), plan)


@pytest.mark.parametrize("seed", range(16))
def test_same_draws(native: tuple[NativeBackend, Step], oracle: ReferenceBackend, seed: int) -> None:
    """64 draws with random options."""
    plan = random_plan(np.random.default_rng(seed), num_rows=32, vocab_size=CONFIG.vocab_size, n=N)
    got, wanted = both(native, oracle, plan)
    assert got.token_ids.tolist() == wanted.token_ids.tolist()
    assert got.top_ids.tolist() == wanted.top_ids.tolist()
    np.testing.assert_allclose(got.logprobs, wanted.logprobs, rtol=0, atol=1e-5)
    np.testing.assert_allclose(got.top_logprobs, wanted.top_logprobs, rtol=0, atol=1e-5)


def test_random_plans_use_every_option(native: tuple[NativeBackend, Step], oracle: ReferenceBackend) -> None:
    """Each option changes some draw of the plans above: none is tested by being off."""
    backend, step = native
    rng = np.random.default_rng(0)
    plan = random_plan(rng, num_rows=32, vocab_size=CONFIG.vocab_size, n=16 * N)
    drawn = backend.sample(step, plan).token_ids
    off = {
        "top_k": 0,
        "top_p": 1,
        "min_p": 0,
        "repetition_penalty": 1,
        "presence_penalty": 0,
        "frequency_penalty": 0,
        "bias_values": 0,
        "mask_rows": -1,
        "dense_rows": -1,
        "keys": 0,
    }
    for name, value in off.items():
        without = replace(plan, **{name: np.full_like(getattr(plan, name), value)})
        assert np.any(backend.sample(step, without).token_ids != drawn), f"{name} changed no draw"
