"""How well a model predicts a text.

The text's tokens are cut into chunks of equal length, each scored by itself: every token but a chunk's first, given
those before it in the chunk. This is the usual perplexity of a fixed context without overlap.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from openherd.engine.sequence import Request, StepOutput
from openherd.errors import EngineError, InputError, OptionError
from openherd.llm.driver import Driver
from openherd.llm.loading import LoadedModel
from openherd.llm.reading import Reading, read_all
from openherd.messages import FinishReason


@dataclass(frozen=True, slots=True)
class Score:
    """Natural logarithms throughout."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]  # of every token but the first of each chunk, in order
    context: int  # tokens of a chunk; the last may be shorter
    num_bytes: int  # of the scored tokens

    @property
    def nll(self) -> float:
        """Mean negative log-likelihood of a scored token."""
        return -math.fsum(self.logprobs) / len(self.logprobs)

    @property
    def perplexity(self) -> float:
        return math.exp(self.nll) if self.nll < 700 else math.inf

    @property
    def bits_per_byte(self) -> float:
        """Bits to code a byte of the scored text: comparable between tokenizers, as perplexity is not."""
        return -math.fsum(self.logprobs) / math.log(2) / self.num_bytes


class _ChunkScore(Reading):
    """Receives one chunk's log-probabilities."""

    def __init__(self) -> None:
        super().__init__()
        self.logprobs: tuple[float, ...] = ()

    def receive(self, output: StepOutput) -> FinishReason | None:
        if output.prompt_logprobs is not None:
            self.logprobs = output.prompt_logprobs
        return super().receive(output)


def score(
    model: LoadedModel,
    driver: Driver,
    text: str,
    *,
    context: int,
    special: bool,
    max_tokens: int | None,
    adapter: str | None,
) -> Score:
    """See `LLM.score`."""
    if not 2 <= context <= model.engine.context:
        raise OptionError(
            f"chunks of {context} tokens cannot be scored: --context must be from 2 to {model.engine.context}"
        )
    ids = model.tokenizer.encode(text, special=special, add_bos=None if special else False)[:max_tokens]
    if len(ids) < 2:
        raise InputError(f"the text is {len(ids)} tokens long; scoring needs at least two")
    chunks = [ids[start : start + context] for start in range(0, len(ids), context)]
    number = model.adapter(adapter)
    scores = [_ChunkScore() for _ in chunks]
    scored = [
        (Request(tuple(chunk), adapter=number, prompt_logprobs=True, generate=False), chunk_score)
        for chunk, chunk_score in zip(chunks, scores, strict=True)
        if len(chunk) > 1
    ]
    _run(driver, scored)
    num_bytes = sum(len(model.tokenizer.token_bytes(token)) for chunk in chunks for token in chunk[1:])
    logprobs = tuple(value for chunk_score in scores for value in chunk_score.logprobs)
    return Score(tuple(ids), logprobs, context, num_bytes)


def _run(driver: Driver, scored: Sequence[tuple[Request, _ChunkScore]]) -> None:
    read_all(driver, scored)
    for _, chunk_score in scored:
        if chunk_score.finish_reason is not FinishReason.LENGTH:
            raise EngineError(f"the text could not be scored: {chunk_score.error or chunk_score.finish_reason}")
