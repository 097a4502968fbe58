"""LLM on the native core: streams, and what shapes a draw, beside the oracle."""

from __future__ import annotations

import random

import numpy as np
import pytest

from openherd.llm import Delta
from tests.unit.llm.tiny_llm import PROMPTS, bits, num_used_blocks, params, tiny_llm


def test_64_streams_on_the_native_core_equal_generate() -> None:
    """D3: streamed or not, the same bits; the streams run beside each other, each step read by another one."""
    prompts = [" ".join(random.Random(i).choices(PROMPTS, k=14 + i % 5)) for i in range(64)]
    asked = [params(seed=i, logprobs=2, temperature=i % 3 / 2, max_tokens=20) for i in range(64)]
    with tiny_llm(backend="native") as llm:
        whole = [llm.generate(prompt, p)[0] for prompt, p in zip(prompts, asked, strict=True)]
        assert min(c.usage.prompt_tokens for c in whole) > 32
        streams = [llm.stream(prompt, p) for prompt, p in zip(prompts, asked, strict=True)]
        deltas: list[list[Delta]] = [[] for _ in streams]
        live = set(range(64))
        while live:
            for i in sorted(live):
                delta = next(streams[i], None)
                live -= {i} if delta is None else set()
                deltas[i] += [delta] if delta is not None else []
        assert llm.stats.max_batch_seqs >= 8
        for c, stream, parts in zip(whole, streams, deltas, strict=True):
            assert bits(stream.completion) == bits(c)
            assert "".join(d.text for d in parts) == c.text
            assert tuple(p for d in parts for p in d.logprobs) == c.logprobs
        assert num_used_blocks(llm) == 0


@pytest.mark.parametrize("backend", ["reference", "native"])
def test_penalties_and_biases_through_llm(backend: str) -> None:
    """Penalties spread greedy answers out, and a great bias or penalty decides alone."""
    changes = {"repetition_penalty": 1.3, "presence_penalty": 0.4, "frequency_penalty": 0.2, "logit_bias": {70: 0.5}}
    with tiny_llm(backend=backend) as llm:
        (plain,) = llm.generate("hello hello", params(temperature=0, ignore_eos=True, max_tokens=40))
        (free,) = llm.generate("hello hello", params(temperature=0, ignore_eos=True, max_tokens=40, **changes))
        assert free.token_ids != plain.token_ids
        assert len(set(free.token_ids)) > len(set(plain.token_ids))
        (held,) = llm.generate("hello", params(temperature=0, max_tokens=6, logit_bias={70: 1000.0}))
        assert held.token_ids == (70,) * 6
        (never,) = llm.generate("hello", params(max_tokens=40, ignore_eos=True, presence_penalty=100.0))
        assert len(set(never.token_ids)) == 40


def test_oracle_and_native_core_shape_draws_alike() -> None:
    changes = {"repetition_penalty": 1.3, "presence_penalty": 0.4, "frequency_penalty": 0.2, "logit_bias": {70: 0.5}}
    asked = [params(temperature=t, ignore_eos=True, max_tokens=30, logprobs=3, **changes) for t in (0.0, 0.8)]
    answers = []
    for backend in ("reference", "native"):
        with tiny_llm(backend=backend) as llm:
            answers.append([llm.generate("hello", p)[0] for p in asked])
    for oracle, native in zip(*answers, strict=True):
        assert oracle.token_ids == native.token_ids
        values = [[p.logprob for p in c.logprobs] for c in (oracle, native)]
        np.testing.assert_allclose(*values, atol=2e-3)  # the cache is f16
