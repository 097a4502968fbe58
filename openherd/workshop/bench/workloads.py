"""The work that is timed, through the same door as any caller: `LLM.generate`, from scheduling to text."""

from __future__ import annotations

from collections.abc import Iterator
from time import perf_counter

import numpy as np

from openherd.llm import LLM
from openherd.messages import Completion
from openherd.options import SamplingParams
from openherd.workshop.bench.core_time import CoreTime

PREFILL = 512
LONG = 4096
DECODE_TOKENS = 128
BATCH_TOKENS = 64
LONG_TOKENS = 32
BATCHES = (4, 16, 32)
CHAT_CONTEXT = 2048


class Workloads:
    """Runs on a loaded model; each yields (name of a measurement, value). Prompts are random tokens, never the same."""

    def __init__(self, llm: LLM, seed: int = 0) -> None:
        self._llm = llm
        self._random = np.random.default_rng(seed)
        self._decode_rate: float | None = None  # of this round, for what a long context costs

    def warm_up(self) -> None:
        """Touch every page and let the machine reach its speed."""
        self._generate([self._prompt(min(PREFILL, self._llm.context // 2))], 16)

    def prefill(self) -> Iterator[tuple[str, float]]:
        """Prompt tokens a second until the first token is there."""
        yield f"prefill_{PREFILL}", self._prefill(self._prompt(PREFILL))

    def decode(self) -> Iterator[tuple[str, float]]:
        """One sequence from a context of one token."""
        self._decode_rate, share = self._decode(1, DECODE_TOKENS)
        yield "decode", self._decode_rate
        yield "python_share", share

    def decode_batch(self, batch: int) -> Iterator[tuple[str, float]]:
        """`batch` sequences at once from a context of one token each, all their tokens together."""
        rate, share = self._decode(batch, BATCH_TOKENS)
        yield f"decode_batch_{batch}", rate
        if batch == max(BATCHES):
            yield f"python_share_batch_{batch}", share

    def long_context(self) -> Iterator[tuple[str, float]]:
        """A long prompt, and decoding behind it, whose prompt the prefix cache then has."""
        prompt = self._prompt(LONG)
        yield f"prefill_{LONG}", self._prefill(prompt)
        rate = self._generate([prompt], LONG_TOKENS)[0].timing["decode_tokens_per_s"]
        yield f"decode_at_{LONG}", rate
        if self._decode_rate is not None:
            yield "long_context_slowdown", self._decode_rate / rate

    def _prefill(self, prompt: list[int]) -> float:
        started = perf_counter()
        self._generate([prompt], 1)
        return len(prompt) / (perf_counter() - started)

    def _decode(self, batch: int, num_tokens: int) -> tuple[float, float]:
        """(tokens a second of all sequences, Python's share of the time in per cent)."""
        prompts = [self._prompt(1) for _ in range(batch)]
        with CoreTime() as core:
            started = perf_counter()
            completions = self._generate(prompts, num_tokens)
            seconds = perf_counter() - started
        rate = sum(completion.timing["decode_tokens_per_s"] for completion in completions)
        return rate, 100 * (1 - core.seconds / seconds)

    def _prompt(self, num_tokens: int) -> list[int]:
        return [int(token) for token in self._random.integers(0, self._llm.config.vocab_size, num_tokens)]

    def _generate(self, prompts: list[list[int]], num_tokens: int) -> list[Completion]:
        params = SamplingParams(max_tokens=num_tokens, temperature=0.0, ignore_eos=True, speculate=False)
        return self._llm.generate(prompts, params)
