"""The oracle as a backend: cache blocks, taps, sampling plans, scores, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from openherd.engine.protocols import KVSpec, Limits, SamplePlan, TapRows
from openherd.engine.reference_backend import ReferenceBackend
from openherd.errors import EngineError
from openherd.kernels.reference_sampler import log_softmax
from tests.parity.batches import Rows, token_batch
from tests.parity.llama_cases import PLAIN, SEED, prompts
from tests.parity.random_llama import float_source, random_weights
from tests.parity.sample_plans import neutral_plan

LIMITS = Limits(max_context=64, max_seqs=4, max_batch_tokens=64, max_logit_rows=64)


def loaded(kv: KVSpec | None = None) -> ReferenceBackend:
    backend = ReferenceBackend()
    backend.load(PLAIN, float_source(random_weights(PLAIN, SEED)), kv or KVSpec(), LIMITS, num_blocks=8)
    return backend


def ids(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


def plan(rows: np.ndarray, **changes: Any) -> SamplePlan:
    return neutral_plan(rows, PLAIN.vocab_size, **changes)


def test_a_saved_block_can_be_written_elsewhere() -> None:
    """Decode on from a cache that was read out, wiped and written back into other blocks: the same bits."""
    backend = loaded()
    prompt = prompts(PLAIN)[1]
    backend.forward(token_batch([Rows(prompt[:-1], 0, (3, 6))]))
    saved = backend.read_blocks(0, ids(3, 6))
    wanted = backend.logits(backend.forward(token_batch([Rows(prompt[-1:], len(prompt) - 1, (3, 6))])))
    backend.write_blocks(0, ids(3, 6), np.zeros_like(saved))
    backend.write_blocks(0, ids(0, 2), saved)
    got = backend.logits(backend.forward(token_batch([Rows(prompt[-1:], len(prompt) - 1, (0, 2))])))
    assert np.array_equal(got, wanted)


def test_blocks_are_as_large_as_planned() -> None:
    for dtype in ("f16", "f32"):
        backend = loaded(KVSpec(dtype))
        planned = backend.plan(PLAIN, float_source(random_weights(PLAIN, SEED)), KVSpec(dtype), LIMITS)
        assert backend.read_blocks(0, ids(1, 5)).shape == (2, planned.kv_block)


def test_copied_blocks_serve_another_sequence() -> None:
    backend = loaded()
    prompt = prompts(PLAIN)[1]
    backend.forward(token_batch([Rows(prompt[:-1], 0, (3, 6))]))
    backend.copy_blocks(0, np.array([[3, 1], [6, 4]], np.int32))
    rows = [Rows(prompt[-1:], len(prompt) - 1, blocks) for blocks in ((3, 6), (1, 4))]
    logits = backend.logits(backend.forward(token_batch(rows)))
    assert np.array_equal(logits[0], logits[1])


def test_f16_cache_rounds_and_f32_does_not() -> None:
    prompt = prompts(PLAIN)[0]
    logits = [
        (b := loaded(KVSpec(dtype))).logits(b.forward(token_batch([Rows(prompt, 0, (0, 1, 2))])))
        for dtype in ("f16", "f32")
    ]
    difference = np.abs(logits[0] - logits[1]).max()
    assert 1e-5 < difference < 2e-2


def test_taps_see_their_site_and_rows() -> None:
    backend = loaded()
    prompt = prompts(PLAIN)[1]
    taps = (
        TapRows((0, "resid"), ids(0, 4)),
        TapRows((1, "qkv_in"), ids(4)),
        TapRows((1, "down_in"), ids(2)),
        TapRows((99, "final"), ids(4)),
    )
    step = backend.forward(token_batch([Rows(prompt, 0, (0, 1))], taps))
    assert [backend.hidden(step, i).shape for i in range(4)] == [(2, 48), (1, 48), (1, 80), (1, 48)]
    weights = random_weights(PLAIN, SEED)
    x = backend.hidden(step, 0)[1].astype(np.float64)
    normed = x / np.sqrt(np.mean(x * x) + PLAIN.norm_eps) * weights["model.layers.1.input_layernorm.weight"]
    np.testing.assert_allclose(backend.hidden(step, 1)[0], normed, rtol=1e-6)
    logits = weights["lm_head.weight"].astype(np.float64) @ backend.hidden(step, 3)[0]
    np.testing.assert_allclose(backend.logits(step)[4], logits, rtol=1e-5, atol=1e-6)


def test_a_tap_on_no_site_is_refused() -> None:
    batch = token_batch([Rows(prompts(PLAIN)[1], 0, (0, 1))], (TapRows((7, "resid"), ids(0)),))
    with pytest.raises(EngineError, match="no tap site"):
        loaded().forward(batch)


def test_sampled_logprobs_are_of_the_raw_logits() -> None:
    backend = loaded()
    step = backend.forward(token_batch([Rows(prompts(PLAIN)[1], 0, (0, 1))]))
    mask = np.array([[0, 0b100, 0, 0]], np.uint32)  # only token 34
    sampled = backend.sample(step, plan(ids(3, 8, 5), num_top=ids(2, 0, -1), mask_rows=ids(0, -1, -1), masks=mask))
    logprobs = log_softmax(backend.logits(step))
    assert sampled.token_ids[0] == 34
    assert sampled.logprobs[0] == np.float32(logprobs[3, 34])
    assert sampled.logprobs[1] == np.float32(logprobs[8, sampled.token_ids[1]])
    assert sampled.logprobs[2] == 0
    best = np.argsort(-logprobs[3])[:2]
    assert sampled.top_ids.tolist() == [best.tolist(), [-1, -1], [-1, -1]]
    np.testing.assert_array_equal(sampled.top_logprobs[0], logprobs[3, best].astype(np.float32))


def test_each_entry_of_a_plan_has_its_own_lists() -> None:
    backend = loaded()
    step = backend.forward(token_batch([Rows(prompts(PLAIN)[1], 0, (0, 1))]))
    entries = plan(
        ids(0, 0, 0),
        temperature=np.zeros(3, np.float32),
        bias_starts=ids(0, 1, 1, 2),
        bias_ids=ids(11, 22),
        bias_values=np.full(2, 100, np.float32),
    )
    plain = int(np.argmax(backend.logits(step)[0]))
    assert backend.sample(step, entries).token_ids.tolist() == [11, plain, 22]


def test_a_mask_that_forbids_everything_fails_its_entry_alone() -> None:
    backend = loaded()
    step = backend.forward(token_batch([Rows(prompts(PLAIN)[1], 0, (0, 1))]))
    entries = plan(ids(0, 0), mask_rows=ids(0, -1), masks=np.zeros((1, 4), np.uint32))
    drawn = backend.sample(step, entries).token_ids
    assert drawn[0] == -1
    assert drawn[1] >= 0


def test_score_is_the_log_probability_of_targets() -> None:
    backend = loaded()
    prompt = prompts(PLAIN)[1]
    step = backend.forward(token_batch([Rows(prompt, 0, (0, 1))]))
    rows = np.arange(len(prompt) - 1, dtype=np.int32)
    wanted = log_softmax(backend.logits(step))[rows, prompt[1:]].astype(np.float32)
    np.testing.assert_array_equal(backend.score(step, rows, prompt[1:]), wanted)


def test_a_closed_backend_refuses() -> None:
    backend = loaded()
    step = backend.forward(token_batch([Rows(prompts(PLAIN)[1], 0, (0, 1))]))
    backend.close()
    with pytest.raises(EngineError, match="no model"):
        backend.logits(step)
    with pytest.raises(EngineError, match="no model"):
        backend.forward(token_batch([Rows(ids(1), 0, (0,))]))


def test_unknown_kv_group_is_refused() -> None:
    with pytest.raises(EngineError, match="group 1"):
        loaded().read_blocks(1, ids(0))
