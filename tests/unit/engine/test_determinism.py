"""Same tokens, whatever the load: tokens and log-probabilities to the bit, for 64 prompts of several blocks each.

Each load's counters prove that what it is about took place. A request's answer "alone" is made with one sequence at a
time, whole prompts, no cache and no speculation; under the loads everything speculates. A fault that changed one bit of
one logit in one of the 64 answers would show in its log-probabilities; over 1,200 tokens are drawn, each with its own
and two more log-probabilities.
"""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from openherd.checkpoints import open_checkpoint
from openherd.engine import pace
from openherd.engine.backends import make_backend
from openherd.engine.engine import Engine
from openherd.engine.sequence import Request
from openherd.options import SamplingParams
from openherd.tokenizers import Tokenizer
from tests.unit.engine.tiny_model import FULL, Answer, drain, prompt, request, run, tiny_engine

NUM_PROMPTS = 64
KINDS: tuple[dict[str, Any], ...] = (
    {},  # temperature 1, all tokens
    {"temperature": 0.0},
    {"temperature": 0.7, "top_p": 0.9, "top_k": 40},
    {"temperature": 1.3, "min_p": 0.02, "repetition_penalty": 1.2, "frequency_penalty": 0.3, "presence_penalty": 0.2},
)


TEXT = (
    "the river of stones 1984 was, naïve; and (then) light! über 東京 answers ran home because 3.14 trees sing "
    'don\'t "quote" me while rain, slowly, fills 12,000 empty cups - or does it?'
)


@dataclass(frozen=True)
class Subject:
    """A model on a backend, and the 64 requests that it answers."""

    name: str
    requests: tuple[Request, ...]
    num_tokens: int  # of each answer, so many that sequences grow into further blocks
    num_forked: int  # requests answered four times
    start: Callable[..., Engine]  # threads, and the options of `tiny_engine`


def tiny(backend_name: str) -> Subject:
    """The tiny model. Prompts of 40 to 166 tokens; every second begins with one of four prefixes of 40 tokens."""
    asked = []
    num_tokens = 36
    for i in range(NUM_PROMPTS):
        plain = request(40 + 2 * i, i, max_tokens=num_tokens, **KINDS[i % len(KINDS)])
        shared = prompt(40, 1000 + i % 4) if i % 2 else ()
        asked.append(replace(plain, prompt_ids=shared + plain.prompt_ids[len(shared) :]))

    def start(threads: int = 1, **options: Any) -> Engine:
        return tiny_engine(backend=make_backend(backend_name, threads), **options)

    return Subject(backend_name, tuple(asked), num_tokens, 16, start)


def default(path: Path) -> Subject:
    """The default model on the native core. Prompts of 25 to 56 words; every second begins like three others."""
    checkpoint = open_checkpoint(path)
    tokenizer = Tokenizer(checkpoint.tokenizer)
    vocabulary = TEXT.split()
    num_tokens = 12
    asked = []
    for i in range(NUM_PROMPTS):
        words = random.Random(i % 16 if i % 2 else 1000 + i).choices(vocabulary, k=25)
        words += random.Random(i).choices(vocabulary, k=i // 2)
        params = SamplingParams(max_tokens=num_tokens, ignore_eos=True, **{**FULL, "seed": i, **KINDS[i % len(KINDS)]})
        asked.append(Request(tuple(tokenizer.encode(" ".join(words))), params))

    def start(threads: int = 1, **options: Any) -> Engine:
        backend = make_backend("native", threads)
        return tiny_engine(backend=backend, config=checkpoint.config, weights=checkpoint.tensors, **options)

    return Subject("default", tuple(asked), num_tokens, 4, start)


@pytest.fixture(scope="module", params=["reference", "native", pytest.param("default", marks=pytest.mark.slow)])
def subject(request: pytest.FixtureRequest) -> Subject:
    if request.param == "default":
        return default(request.getfixturevalue("default_model"))
    return tiny(request.param)


@pytest.fixture(scope="module")
def alone(subject: Subject) -> list[Answer]:
    """Each prompt in one step, however long it takes: a slow machine (a sanitizer makes one) would divide it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pace, "LONGEST_STEP_S", 1e6)
        return _answers_alone(subject)


def _answers_alone(subject: Subject) -> list[Answer]:
    engine = subject.start(max_seqs=1, max_batch_tokens=512, prefix_caching=False)
    plain = [replace(r, params=replace(r.params, speculate=False)) for r in subject.requests]
    answers = run(engine, plain)
    stats = engine.stats
    assert (stats.max_batch_seqs, stats.num_split_prompts, stats.num_cached_tokens, stats.num_preemptions) == (
        1,
        0,
        0,
        0,
    )
    assert {len(answer.logprobs) for answer in answers} == {subject.num_tokens}, "failed answers would be equal, too"
    engine.close()
    return answers


def shuffled(engine: Engine, requests: Sequence[Request], seed: int, **options: Any) -> list[Answer]:
    """The requests added in another order, `options` as `run` takes them; answers in the usual order."""
    order = list(range(NUM_PROMPTS))
    random.Random(seed).shuffle(order)
    answers = run(engine, [requests[i] for i in order], **options)
    return [answer for _, answer in sorted(zip(order, answers, strict=True), key=lambda pair: pair[0])]


def assert_bit_equal(answers: list[Answer], alone: list[Answer]) -> None:
    assert len(answers) == len(alone) == NUM_PROMPTS
    different = [i for i in range(NUM_PROMPTS) if answers[i].bits != alone[i].bits]
    assert not different, f"{len(different)} of {NUM_PROMPTS} answers differ, the first is {different[0]}"


@pytest.mark.parametrize("threads", [1, 2])
def test_d1_d3_in_batches_of_sixteen_with_split_prompts(subject: Subject, alone: list[Answer], threads: int) -> None:
    engine = subject.start(threads, max_seqs=16, max_batch_tokens=48, prefix_caching=False)
    assert_bit_equal(shuffled(engine, subject.requests, seed=threads), alone)
    assert engine.stats.max_batch_seqs >= 8
    assert engine.stats.num_split_prompts >= 8
    engine.close()


def test_d1_under_preemption(subject: Subject, alone: list[Answer]) -> None:
    """The pool holds less than two contexts, and sequences that start small grow: the youngest must give way.

    Admission leaves room for each to grow once, which is all that short answers need. So what is free after a step is
    taken away until one has given way.
    """
    engine = subject.start(num_blocks=20, max_seqs=16, max_batch_tokens=256)
    pool = engine._scheduler._pool
    taken: list[int] = []
    num_evicted_here = 0

    def take_what_is_free() -> None:
        nonlocal num_evicted_here
        if engine.stats.num_preemptions == 0:
            before = pool.num_evicted
            taken.extend(pool.allocate() for _ in range(pool.num_free))
            num_evicted_here += pool.num_evicted - before
        else:
            pool.release(taken)
            taken.clear()

    assert_bit_equal(shuffled(engine, subject.requests, seed=3, after_step=take_what_is_free), alone)
    assert engine.stats.num_preemptions > 0
    assert engine.stats.num_evicted_blocks > num_evicted_here
    engine.close()


def test_d2_cold_and_warm_prefix_cache(subject: Subject, alone: list[Answer]) -> None:
    engine = subject.start(num_blocks=1024, max_seqs=8)
    assert_bit_equal(shuffled(engine, subject.requests, seed=4), alone)
    cold = engine.stats.num_cached_tokens
    assert_bit_equal(shuffled(engine, subject.requests, seed=5), alone)
    all_full_blocks = sum((len(request.prompt_ids) - 1) // 16 * 16 for request in subject.requests)
    assert engine.stats.num_cached_tokens - cold == all_full_blocks
    engine.close()


def test_d4_choices_draw_what_each_would_alone(subject: Subject, alone: list[Answer]) -> None:
    asked = [replace(r, params=replace(r.params, n=4)) for r in subject.requests[: subject.num_forked]]
    engine = subject.start(num_blocks=64, max_seqs=12)
    seq_ids = [engine.add_choices(r.choices()) for r in asked]
    answers = drain(engine)
    assert engine.stats.num_forks >= subject.num_forked
    engine.close()
    single = subject.start(max_seqs=1, prefix_caching=False)
    for r, ids, first in zip(asked, seq_ids, alone, strict=False):
        others = [run(single, [replace(r, choice=choice)])[0] for choice in range(1, len(ids))]
        for seq_id, expected in zip(ids, [first, *others], strict=True):
            assert len(expected.logprobs) == subject.num_tokens
            assert answers[seq_id].bits == expected.bits
    single.close()


def digest(backend_name: str) -> str:
    """One number for the tiny model's answers to the first eight requests, in this process."""
    subject = tiny(backend_name)
    answers = run(subject.start(1), subject.requests[:8])
    assert {len(answer.logprobs) for answer in answers} == {subject.num_tokens}
    return hashlib.sha256(repr([answer.bits for answer in answers]).encode()).hexdigest()


@pytest.mark.parametrize("backend_name", ["reference", "native"])
def test_d3_after_a_restart(backend_name: str) -> None:
    """Another process, with its own hash seed and addresses, answers the same bits."""
    code = f"from tests.unit.engine.test_determinism import digest; print(digest({backend_name!r}))"
    restarted = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert restarted.stdout.strip() == digest(backend_name)
