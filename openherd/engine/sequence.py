"""What is asked of the engine, what runs, and what each step gives back: Request, Sequence, StepOutput."""

from __future__ import annotations

import os
from collections.abc import Iterable
from collections.abc import Sequence as Tokens
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import get_args

import numpy as np

from openherd.config import ModelConfig
from openherd.engine.protocols import I32, HiddenTap, LogitsProcessor, NoiseSource
from openherd.engine.speculate import Speculation
from openherd.errors import ContextLengthError, InputError, OptionError
from openherd.kernels.ops import TapName
from openherd.messages import FinishReason, TokenLogprob
from openherd.options import SamplingParams


@dataclass(frozen=True, slots=True)
class Request:
    """One choice of one prompt. The engine does not read `params.n` and `params.stop`: `choices` expands the first,
    and stop strings are found by the caller, who knows text and calls `Engine.finish`.
    """

    prompt_ids: tuple[int, ...]
    params: SamplingParams = field(default_factory=SamplingParams)
    choice: int = 0  # 0..n-1, part of the draw's key
    processors: tuple[LogitsProcessor, ...] = ()  # owned by this request alone
    noise: NoiseSource | None = None  # None: keys from params.seed
    taps: tuple[HiddenTap, ...] = ()
    adapter: int = -1  # from Engine.load_adapter; -1 none
    salt: bytes = b""  # requests of different salts never share cached blocks
    prompt_logprobs: bool = False  # score the prompt: log-probability of prompt_ids[1:], each given those before it
    generate: bool = True  # False: end (LENGTH) once the prompt is computed, for scores and embeddings
    fork_of: int | None = None  # seq id of a request with the same prompt, whose prefill this one waits for and shares

    def choices(self) -> list[Request]:
        """`params.n` choices of the prompt, for `Engine.add_choices`: they share a seed, each has its own processors.

        The first alone scores the prompt.
        """
        first = replace(self, params=replace(self.params, seed=self.drawn_seed()))
        others = [
            replace(first, choice=choice, processors=tuple(p.fork() for p in self.processors), prompt_logprobs=False)
            for choice in range(1, self.params.n)
        ]
        return [first, *others]

    def drawn_seed(self) -> int:
        """The asked seed, or a random one that is exact as a number in JSON."""
        return int.from_bytes(os.urandom(7)) >> 3 if self.params.seed is None else self.params.seed

    def continues(self, parent: Request) -> bool:
        """Its prompt is computed as the parent's is, so that the KV blocks are the same."""
        mine, its = (self.prompt_ids, self.salt, self.adapter), (parent.prompt_ids, parent.salt, parent.adapter)
        return mine == its

    def check(self, config: ModelConfig, context: int) -> None:
        """Raise an `InputError` that names what such a model cannot run."""
        if not self.prompt_ids:
            raise InputError("the prompt has no tokens", hint="Give at least one token, such as BOS.")
        longest = context - 1 if self.generate else context
        if len(self.prompt_ids) > longest:
            raise ContextLengthError(
                f"the prompt has {len(self.prompt_ids):,} tokens and the context holds {context:,}"
                + (", of which at least one is for the answer" if self.generate else ""),
                hint="Shorten the prompt, or raise --context if the model and memory allow.",
            )
        last = config.vocab_size - 1
        for name, ids in (
            ("the prompt", self.prompt_ids),
            ("logit_bias", self.params.logit_bias),
            ("stop_token_ids", self.params.stop_token_ids),
        ):
            if ids and not (min(ids) >= 0 and max(ids) <= last):
                raise OptionError(f"{name} has a token id outside the vocabulary, 0..{last}")
        for layer, site in (site for tap in self.taps for site in tap.sites):
            if site not in get_args(TapName) or not (site == "final" or 0 <= layer < config.n_layers):
                raise InputError(f"the model has no tap site {site!r} in layer {layer}")


@dataclass(slots=True)
class StepOutput:
    """What one step brought for one sequence. The last output of a sequence has a `finish_reason`.

    A drawn stop token is the last of `token_ids` and also `stop_match`; the caller leaves it out of the text.
    """

    seq_id: int
    token_ids: tuple[int, ...] = ()  # drawn in this step: one, or more where drafts were accepted
    logprobs: tuple[TokenLogprob, ...] = ()  # one for each token, where params.logprobs is not None
    finish_reason: FinishReason | None = None
    stop_match: int | None = None
    num_drafted: int = 0  # tokens that speculation guessed and this step checked
    num_accepted: int = 0  # of these, in `token_ids`
    error: str | None = None  # why, when finish_reason is ERROR or CONTENT_FILTER
    prompt_logprobs: tuple[float, ...] | None = None  # [P-1], once, in the step that completes the prompt
    num_prompt_tokens: int = 0
    cached_tokens: int = 0  # prompt tokens found in the prefix cache or shared with the fork's parent
    seed: int = 0  # of the draws; the request's own, or the random one chosen for it


class Status(StrEnum):
    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"


class TokenCounts:
    """Which tokens a sequence has seen and how often its answer has each, as arrays that grow: for penalties."""

    def __init__(self, prompt_ids: tuple[int, ...], answer_ids: Iterable[int] = ()) -> None:
        unique = sorted(set(prompt_ids))
        self._index = {token: i for i, token in enumerate(unique)}
        self._ids = np.array(unique, np.int32)
        self._counts = np.zeros(len(unique), np.int32)
        for token in answer_ids:
            self.add(token)

    @property
    def ids(self) -> I32:
        return self._ids[: len(self._index)]

    @property
    def counts(self) -> I32:
        return self._counts[: len(self._index)]

    def after(self, token: int) -> TokenCounts:
        """What `add` would make of these, as a copy."""
        counts = TokenCounts(())
        counts._index, counts._ids, counts._counts = self._index.copy(), self._ids.copy(), self._counts.copy()
        counts.add(token)
        return counts

    def add(self, token: int) -> None:
        i = self._index.setdefault(token, len(self._index))
        if i == len(self._ids):
            room = max(64, len(self._ids))
            self._ids = np.concatenate([self._ids, np.zeros(room, np.int32)])
            self._counts = np.concatenate([self._counts, np.zeros(room, np.int32)])
        self._ids[i] = token
        self._counts[i] += 1


@dataclass(slots=True, eq=False)
class Sequence:
    """A request on its way: its tokens, how many of them are in the KV cache, and the blocks that hold them.

    Positions `[0, num_computed)` are in the cache. While decoding exactly one token, the last drawn, is not.
    """

    id: int  # ascending in order of arrival
    request: Request
    seed: int
    noise: NoiseSource
    stop_ids: frozenset[int]
    max_len: int  # prompt and answer end (LENGTH) here
    ids: list[int]  # prompt and answer
    status: Status = Status.WAITING
    slot: int = -1  # row of the engine's per-sequence arrays while running
    blocks: list[int] = field(default_factory=list)
    num_computed: int = 0
    num_chunks: int = 0  # steps since admission
    num_cached: int = 0  # of the prompt, when first admitted
    num_tabled: int = 0  # of `blocks`, copied into the batch's block table
    block_hashes: list[bytes] = field(default_factory=list)  # of its full blocks, as far as they were asked for
    num_findable: int = 0  # of `blocks`, registered in the pool by their hashes
    num_observed: int = 0  # positions the taps have seen; recomputing after preemption does not show them again
    was_admitted: bool = False
    prompt_logprobs: list[float] = field(default_factory=list)
    counts: TokenCounts | None = None  # only where a penalty is on
    speculation: Speculation | None = None  # from the first draft on

    @property
    def num_prompt(self) -> int:
        return len(self.request.prompt_ids)

    @property
    def num_generated(self) -> int:
        return len(self.ids) - self.num_prompt

    @property
    def num_pending(self) -> int:
        """Tokens known but not yet in the KV cache: 1 while decoding."""
        return len(self.ids) - self.num_computed

    def restart(self) -> None:
        """Wait again with nothing in the KV cache. The tokens stay, and so do the hashes, which follow from them."""
        self.status = Status.WAITING
        self.slot = -1
        self.blocks = []
        self.speculation = None  # an interrupt may have left its index half written
        self.num_computed = self.num_tabled = self.num_findable = 0

    @property
    def needs_every_row(self) -> bool:
        """Every prompt position must be computed for its outputs, so cached blocks are of no use."""
        return self.request.prompt_logprobs or any(tap.rows == "all" for tap in self.request.taps)

    @property
    def speculates(self) -> bool:
        """Its steps may check drafts. Taps must not see rows that are taken back."""
        return self.request.params.speculate and not self.request.taps

    def ending_in(self, tokens: Tokens[int]) -> tuple[int, FinishReason | None]:
        """How many of these tokens the answer takes in if they follow, and why it ends with the last, if it does."""
        for i, token in enumerate(tokens, 1):
            if token in self.stop_ids:
                return i, FinishReason.STOP
            if len(self.ids) + i >= self.max_len:
                return i, FinishReason.LENGTH
        return len(tokens), None

    def output(self) -> StepOutput:
        """An empty output of this sequence."""
        return StepOutput(self.id, num_prompt_tokens=self.num_prompt, cached_tokens=self.num_cached, seed=self.seed)
