"""Engines over a Llama of random numbers, small enough for the oracle, and ways to run requests to their end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from openherd.checkpoints.source import Tensor, TensorSource
from openherd.config import ModelConfig
from openherd.engine.backends import make_backend
from openherd.engine.engine import Engine
from openherd.engine.protocols import Backend, KVSpec, Limits
from openherd.engine.sequence import Request, StepOutput
from openherd.engine.speculate import Drafter, PromptLookup
from openherd.messages import FinishReason, TokenLogprob
from openherd.options import EngineOptions, SamplingParams
from tests.parity.random_llama import float_source, random_weights

TINY = ModelConfig(
    family="llama",
    dim=64,
    n_layers=2,
    n_heads=4,
    n_kv_heads=2,
    head_dim=16,
    ffn_dim=96,
    vocab_size=101,  # no multiple of 32: the last word of a mask is partly used
    max_seq_len=512,
)


# Draws from the whole distribution, and says how likely each token was.
FULL: dict[str, Any] = {"temperature": 1.0, "top_p": 1.0, "logprobs": 2}


@cache
def tiny_weights() -> dict[str, Tensor]:
    return float_source(random_weights(TINY, seed=7))


def tiny_engine(
    *,
    backend: Backend | None = None,
    config: ModelConfig = TINY,
    weights: TensorSource | None = None,
    num_blocks: int = 256,
    context: int = 256,
    max_seqs: int = 16,
    max_batch_tokens: int = 64,
    prefix_caching: bool = True,
    stop_ids: Iterable[int] = (),
    make_drafter: Callable[[], Drafter] = PromptLookup,
) -> Engine:
    """An engine, over the tiny model unless another is given, whose pool has `num_blocks` blocks."""
    backend = backend or make_backend("reference")
    weights = weights or tiny_weights()
    plan = backend.plan(config, weights, KVSpec(), Limits(context, max_seqs, max_batch_tokens, max_seqs + 64))
    options = EngineOptions(
        context=context,
        kv_memory=num_blocks * plan.kv_block,
        max_seqs=max_seqs,
        max_batch_tokens=max_batch_tokens,
        prefix_caching=prefix_caching,
    )
    return Engine(backend, config, weights, options=options, stop_ids=stop_ids, make_drafter=make_drafter)


@dataclass
class Answer:
    """All outputs of one sequence."""

    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    last: StepOutput | None = None
    prompt_logprobs: tuple[float, ...] | None = None

    @property
    def finish_reason(self) -> FinishReason:
        assert self.last is not None
        assert self.last.finish_reason is not None
        return self.last.finish_reason

    @property
    def bits(self) -> tuple[object, ...]:
        """What determinism promises: tokens, and log-probabilities to the bit."""
        return tuple(self.token_ids), tuple((p.logprob, p.top) for p in self.logprobs), self.finish_reason

    def take(self, output: StepOutput) -> None:
        assert self.last is None or self.last.finish_reason is None, "an output after the last"
        self.token_ids += output.token_ids
        self.logprobs += output.logprobs
        self.last = output
        if output.prompt_logprobs is not None:
            assert self.prompt_logprobs is None, "the prompt was scored twice"
            self.prompt_logprobs = output.prompt_logprobs


def drain(engine: Engine, limit: int = 20_000, *, after_step: Callable[[], None] = lambda: None) -> dict[int, Answer]:
    """Step until nothing is left; every answer that ended on the way, by sequence id."""
    answers: dict[int, Answer] = {}
    for _ in range(limit):
        if not engine.has_work:
            return answers
        for output in engine.step():
            answers.setdefault(output.seq_id, Answer()).take(output)
        after_step()
    raise AssertionError(f"the engine still has work after {limit} steps")


def run(engine: Engine, requests: Sequence[Request], *, after_step: Callable[[], None] = lambda: None) -> list[Answer]:
    """Run these requests together; their answers in order."""
    seq_ids = [engine.add_request(request) for request in requests]
    answers = drain(engine, after_step=after_step)
    return [answers[seq_id] for seq_id in seq_ids]


def prompt(length: int, seed: int, *, vocab_size: int = TINY.vocab_size) -> tuple[int, ...]:
    return tuple(np.random.default_rng(seed).integers(0, vocab_size, length).tolist())


def request(length: int, number: int, *, max_tokens: int = 12, **params: Any) -> Request:
    """The number-th request of this length: drawn at temperature 1 from all tokens, log-probabilities asked."""
    asked = {**FULL, "seed": number, **params}
    return Request(prompt(length, number), SamplingParams(max_tokens=max_tokens, **asked))
