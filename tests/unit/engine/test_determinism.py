"""Same tokens, whatever the load: tokens and log-probabilities to the bit, for 64 prompts of several blocks each.

Each load's counters prove that what it is about took place. A request's answer "alone" is made with one sequence at a
time, whole prompts, no cache. A fault that changed one bit of one logit in one of the 64 answers would show in its
log-probabilities; over 2,000 tokens are drawn, each with its own and two more log-probabilities.
"""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from openherd.engine.backends import make_backend
from openherd.engine.engine import Engine
from openherd.engine.sequence import Request
from tests.unit.engine.tiny_model import Answer, drain, prompt, request, run, tiny_engine

NUM_PROMPTS = 64
KINDS: tuple[dict[str, Any], ...] = (
    {},  # temperature 1, all tokens
    {"temperature": 0.0},
    {"temperature": 0.7, "top_p": 0.9, "top_k": 40},
    {"temperature": 1.3, "min_p": 0.02, "repetition_penalty": 1.2, "frequency_penalty": 0.3, "presence_penalty": 0.2},
)


@cache
def requests() -> tuple[Request, ...]:
    """Prompts of 40 to 166 tokens; every second begins with one of two shared prefixes of 40 tokens."""
    asked = []
    for i in range(NUM_PROMPTS):
        plain = request(40 + 2 * i, i, max_tokens=36, **KINDS[i % len(KINDS)])
        shared = prompt(40, 1000 + i % 4) if i % 2 else ()
        asked.append(replace(plain, prompt_ids=shared + plain.prompt_ids[len(shared) :]))
    return tuple(asked)


@pytest.fixture(scope="module", params=["reference", "native"])
def backend_name(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


Start = Callable[..., Engine]


@pytest.fixture(scope="module")
def start(backend_name: str) -> Start:
    def start(threads: int = 2, **options: Any) -> Engine:
        return tiny_engine(backend=make_backend(backend_name, threads), **options)

    return start


@pytest.fixture(scope="module")
def alone(start: Start) -> list[Answer]:
    engine = start(max_seqs=1, max_batch_tokens=512, prefix_caching=False)
    answers = run(engine, requests())
    stats = engine.stats
    assert (stats.max_batch_seqs, stats.num_split_prompts, stats.num_cached_tokens, stats.num_preemptions) == (
        1,
        0,
        0,
        0,
    )
    engine.close()
    return answers


def shuffled(engine: Engine, seed: int) -> list[Answer]:
    """The 64 requests added in another order; answers in the usual one."""
    order = list(range(NUM_PROMPTS))
    random.Random(seed).shuffle(order)
    answers = run(engine, [requests()[i] for i in order])
    return [answer for _, answer in sorted(zip(order, answers, strict=True), key=lambda pair: pair[0])]


def assert_bit_equal(answers: list[Answer], alone: list[Answer]) -> None:
    assert len(answers) == len(alone) == NUM_PROMPTS
    different = [i for i in range(NUM_PROMPTS) if answers[i].bits != alone[i].bits]
    assert not different, f"{len(different)} of {NUM_PROMPTS} answers differ, the first is {different[0]}"


@pytest.mark.parametrize("threads", [1, 2])
def test_d1_in_batches_of_sixteen_with_split_prompts(start: Start, alone: list[Answer], threads: int) -> None:
    engine = start(threads, max_seqs=16, max_batch_tokens=48, prefix_caching=False)
    assert_bit_equal(shuffled(engine, seed=threads), alone)
    assert engine.stats.max_batch_seqs >= 8
    assert engine.stats.num_split_prompts >= 8


def test_d1_under_preemption(start: Start, alone: list[Answer]) -> None:
    """The pool holds two contexts, and sequences that start small grow: the youngest must give way."""
    engine = start(num_blocks=32, max_seqs=16, max_batch_tokens=256)
    assert_bit_equal(shuffled(engine, seed=3), alone)
    assert engine.stats.num_preemptions >= 8
    assert engine.stats.num_evicted_blocks > 0


def test_d2_cold_and_warm_prefix_cache(start: Start, alone: list[Answer]) -> None:
    engine = start(num_blocks=1024, max_seqs=8)
    assert_bit_equal(shuffled(engine, seed=4), alone)
    cold = engine.stats.num_cached_tokens
    assert_bit_equal(shuffled(engine, seed=5), alone)
    assert engine.stats.num_cached_tokens - cold >= sum(len(r.prompt_ids) // 16 * 16 - 16 for r in requests())


def test_d4_choices_draw_what_each_would_alone(start: Start) -> None:
    asked = [replace(r, params=replace(r.params, n=4)) for r in requests()[:16]]
    engine = start(num_blocks=64, max_seqs=12)
    seq_ids = [engine.add_choices(r) for r in asked]
    answers = drain(engine)
    assert engine.stats.num_forks >= 16
    single = start(max_seqs=1, prefix_caching=False)
    for r, ids in zip(asked, seq_ids, strict=True):
        for choice, seq_id in enumerate(ids):
            (expected,) = run(single, [replace(r, choice=choice)])
            assert answers[seq_id].bits == expected.bits


def digest(backend_name: str) -> str:
    """One number for the answers to the first eight requests, in this process."""
    engine = tiny_engine(backend=make_backend(backend_name, 1))
    return hashlib.sha256(repr([answer.bits for answer in run(engine, requests()[:8])]).encode()).hexdigest()


def test_d3_after_a_restart(backend_name: str) -> None:
    """Another process, with its own hash seed and addresses, answers the same bits."""
    code = f"from tests.unit.engine.test_determinism import digest; print(digest({backend_name!r}))"
    restarted = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert restarted.stdout.strip() == digest(backend_name)
