"""Options: one dataclass owns each default. Command-line flags and TOML keys derive from these.

The string under an attribute is its help text wherever the option appears.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any, Literal

from openherd.errors import OptionError

KVDtype = Literal["f16", "f32"]

# Far beyond any machine, and what the compiled core can address with room to spare.
MAX_KV_MEMORY = 2**46


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How tokens are drawn, in this order: mask, bias and penalties, temperature, top-k, top-p, min-p, draw."""

    max_tokens: int | None = None
    """Most tokens to generate; none: until the model stops or the context is full."""
    # Low, because the default model is small: of 20 seeds 14 named France's capital at 0.2 and 0.9, 7 at 0.7 and 0.95.
    temperature: float = 0.2
    """Spread of the draw; 0 always takes the likeliest token."""
    top_k: int = 0
    """Keep the k likeliest tokens; 0 keeps all."""
    top_p: float = 0.9
    """Keep the likeliest tokens whose probabilities reach p together; 1 keeps all."""
    min_p: float = 0.0
    """Keep tokens at least this fraction as likely as the likeliest; 0 keeps all."""
    repetition_penalty: float = 1.0
    """Divide positive and multiply negative logits of tokens already in prompt or answer; 1 is off."""
    presence_penalty: float = 0.0
    """Subtract from the logit of every token already in the answer."""
    frequency_penalty: float = 0.0
    """Subtract from a token's logit for each time it is in the answer."""
    logit_bias: dict[int, float] = field(default_factory=dict)
    """Add to the logit of these token ids."""
    seed: int | None = None
    """Seed of the draw; the same seed gives the same answer. None: a random one, which is reported."""
    stop: tuple[str, ...] = ()
    """Stop before any of these strings."""
    stop_token_ids: tuple[int, ...] = ()
    """Stop at any of these token ids, besides the model's own end tokens."""
    ignore_eos: bool = False
    """Go on past the model's end tokens."""
    n: int = 1
    """Number of independent answers."""
    logprobs: int | None = None
    """Report the log-probability of each token, with this many alternatives."""
    # On, as it changes no bit of an answer and drafts only where that is faster: bench/speculation.py measures both.
    speculate: bool = True
    """Guess tokens from the text so far and check several in one step: the same answer, sooner where it repeats."""

    def __post_init__(self) -> None:
        _in_range("temperature", self.temperature, 0.0, 100.0)
        _in_range("top_p", self.top_p, 0.0, 1.0, low_open=True)
        _in_range("min_p", self.min_p, 0.0, 1.0)
        _in_range("repetition_penalty", self.repetition_penalty, 0.01, 100.0)
        _in_range("presence_penalty", self.presence_penalty, -100.0, 100.0)
        _in_range("frequency_penalty", self.frequency_penalty, -100.0, 100.0)
        if not isinstance(self.speculate, bool):
            raise OptionError(f"speculate must be true or false, not {self.speculate!r}")
        _whole("top_k", self.top_k, 0, 2**31 - 1)
        _whole("n", self.n, 1, 128)
        if self.max_tokens is not None:
            _whole("max_tokens", self.max_tokens, 1, 2**31 - 1)
        if self.seed is not None:
            _whole("seed", self.seed, 0, 2**64 - 1)
        if self.logprobs is not None:
            _whole("logprobs", self.logprobs, 0, 20)
        if isinstance(self.stop, str):
            raise OptionError(f"stop must be a tuple of strings, not {self.stop!r}")
        if any(not isinstance(s, str) or not s for s in self.stop):
            raise OptionError("stop must be strings of at least one character")
        for token_id in self.stop_token_ids:
            _whole("stop_token_ids", token_id, 0, 2**31 - 1)
        for token_id, bias in self.logit_bias.items():
            _whole("logit_bias token id", token_id, 0, 2**31 - 1)
            _in_range(f"logit_bias[{token_id}]", bias, -1e4, 1e4)


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How the engine runs a model. None of these changes what a request answers, except `kv_dtype`."""

    context: int | None = None
    """Tokens of context a conversation may use; none: what the model was trained for, as far as memory allows."""
    backend: Literal["native", "reference"] = "native"
    """What computes: the compiled core, or the slow NumPy oracle that it is checked against."""
    threads: int | None = None
    """Compute threads; none: one for each core this process may use."""
    kv_dtype: KVDtype = "f16"
    """Number type of the KV cache; f32 is for parity work."""
    kv_memory: int | None = None
    """Bytes for the KV cache; none: from the context asked and the memory that is free."""
    max_seqs: int = 32
    """Sequences that run at once, at most one for each of max_batch_tokens; more wait."""
    max_batch_tokens: int = 512
    """Rows of one step: longer prompts are prefilled in chunks of at most this many tokens."""
    prefix_caching: bool = True
    """Reuse the KV blocks of a prompt that begins like an earlier one."""

    def __post_init__(self) -> None:
        if self.context is not None:
            _whole("context", self.context, 1, 2**24)
        if self.threads is not None:
            _whole("threads", self.threads, 1, 1024)
        if self.kv_memory is not None:
            _whole("kv_memory", self.kv_memory, 1, MAX_KV_MEMORY)
        if self.kv_dtype not in ("f16", "f32"):
            raise OptionError(f"kv_dtype must be f16 or f32, not {self.kv_dtype!r}")
        _whole("max_seqs", self.max_seqs, 1, 4096)
        _whole("max_batch_tokens", self.max_batch_tokens, 16, 65536)


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """What `herd bench` measures, and how often."""

    threads: int | None = None
    """Compute threads; none: one for each core this process may use."""
    repetitions: int | None = None
    """How often everything is measured; none: 5 times, or as often as fits a minute."""
    quick: bool = False
    """Twice, without the long context and fresh processes: some ten seconds."""
    only: tuple[str, ...] = ()
    """Measure only this, besides the limits: prefill, decode, batch, long, start or memory; may be given again."""

    def __post_init__(self) -> None:
        if self.threads is not None:
            _whole("threads", self.threads, 1, 1024)
        if self.repetitions is not None:
            _whole("repetitions", self.repetitions, 1, 1000)


def help_text(options: type[Any], name: str) -> str:
    """The documentation string that stands under field `name` of an options dataclass."""
    if name not in {f.name for f in fields(options)}:
        raise KeyError(name)
    return _help_texts(options)[name]  # type: ignore[arg-type]  # mypy takes dataclasses for unhashable


@cache
def _help_texts(options: type[Any]) -> dict[str, str]:
    """Of all fields. Kept, because the command line's parser asks again whenever it reads an annotation."""
    import ast
    import inspect
    import sys

    # The whole module is parsed in 2 ms; to find the end of one class, inspect would take 20.
    module = ast.parse(inspect.getsource(sys.modules[options.__module__]))
    body = next(node for node in module.body if isinstance(node, ast.ClassDef) and node.name == options.__name__)
    texts = {}
    for before, after in zip(body.body, body.body[1:], strict=False):
        if isinstance(before, ast.AnnAssign) and isinstance(before.target, ast.Name):
            assert isinstance(after, ast.Expr)
            assert isinstance(after.value, ast.Constant)
            texts[before.target.id] = str(after.value.value)
    return texts


def _in_range(name: str, value: Any, low: float, high: float, *, low_open: bool = False) -> None:
    ok = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not ok or not (low < value if low_open else low <= value) or value > high:
        bracket = "(" if low_open else "["
        raise OptionError(f"{name} must be a number in {bracket}{low:g}, {high:g}], not {value!r}")


def _whole(name: str, value: Any, low: int, high: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise OptionError(f"{name} must be a whole number from {low} to {high}, not {value!r}")
