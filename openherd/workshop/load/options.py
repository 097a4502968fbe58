"""What `herd bench --server` can be told."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from openherd.errors import OptionError
from openherd.workshop.load.lengths import Lengths

REQUESTS = 64
"""So many where neither --requests nor --duration says how many."""

MAX_OPEN = 900
"""Connections at once: many systems let a process have 1,024 files. Beyond it an open loop's requests wait here."""


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """A load on a server. Every other option of these needs --server."""

    server: str | None = None
    """Measure this OpenAI-compatible server, and contact nothing else; OPENHERD_API_KEY is its key, if it wants one."""
    rate: float | None = None
    """Requests a second, arriving as strangers do (a Poisson process), whether or not earlier ones are answered."""
    users: int | None = None
    """Instead of --rate: so many users, each of whom asks again once answered."""
    requests: int | None = None
    """Requests in all; none: 64, or as many as --duration allows."""
    duration: float | None = None
    """Seconds during which requests begin."""
    prompt_words: str = "uniform:20:200"
    """Words of each prompt: a number, uniform:LOW:HIGH, or lognormal:MEDIAN:SIGMA."""
    answer_tokens: str = "64"
    """Most tokens of each answer (max_tokens), in the same forms."""
    prompts: str | None = None
    """JSONL file instead of drawn prompts: "prompt" or "messages", and "max_tokens" if wanted, on each line."""
    ignore_eos: bool = False
    """Ask for answers of full length; a parameter that llama.cpp, vLLM and herd serve know, and others refuse."""
    temperature: float = 0.0
    """Temperature of every request."""
    warmup: int = 4
    """Requests before the measured ones, one after another."""
    seed: int = 0
    """Seed of arrivals, prompts and lengths."""
    timeout: float = 120.0
    """Seconds a request may take before it counts as failed."""
    slo_ttft: float | None = None
    """Milliseconds to the first token that a good answer takes at most; for goodput."""
    slo_tpot: float | None = None
    """Milliseconds for each further token that a good answer takes at most; for goodput."""

    def __post_init__(self) -> None:
        if self.server is None:
            if stray := next((f.name for f in fields(self) if getattr(self, f.name) != f.default), None):
                raise OptionError(f"{_flag(stray)} is about a server's load", hint="try: herd bench --server URL ...")
            return
        if (self.rate is None) == (self.users is None):
            raise OptionError(
                "either --rate or --users must say how requests come", hint="try: --users 16, or --rate 2"
            )
        _within("rate", self.rate, 0.001, 10_000)
        _within("users", self.users, 1, MAX_OPEN)
        _within("requests", self.requests, 1, 1_000_000)
        _within("duration", self.duration, 0.1, 86_400)
        _within("temperature", self.temperature, 0, 100)
        _within("warmup", self.warmup, 0, 1000)
        _within("seed", self.seed, 0, 2**64 - 1)
        _within("timeout", self.timeout, 0.1, 86_400)
        _within("slo_ttft", self.slo_ttft, 0.001, 86_400_000)
        _within("slo_tpot", self.slo_tpot, 0.001, 86_400_000)
        Lengths.parse("--prompt-words", self.prompt_words, 100_000)
        Lengths.parse("--answer-tokens", self.answer_tokens, 1_000_000)

    @property
    def num_requests(self) -> int | None:
        """None: as many as the duration allows."""
        return REQUESTS if self.requests is None and self.duration is None else self.requests


def _within(name: str, value: float | None, low: float, high: float) -> None:
    if value is not None and not (math.isfinite(value) and low <= value <= high):
        raise OptionError(f"{_flag(name)} must be a number from {low:g} to {high:g}, not {value!r}")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
