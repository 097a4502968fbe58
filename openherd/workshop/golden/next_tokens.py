"""What a model expects after short prompts: in float32 keys and values, so that little but the weights decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from openherd.checkpoints import open_checkpoint
from openherd.checkpoints.source import Checkpoint
from openherd.errors import EngineError, FormatError, HerdError
from openherd.llm import LLM
from openherd.messages import FinishReason
from openherd.options import EngineOptions, SamplingParams
from openherd.tokenizers import Tokenizer
from openherd.workshop.golden.document import NextToken
from openherd.workshop.golden.tensors import first_not_finite

TOP = 5  # recorded of each
ASKED = 20  # the most the engine reports: a recorded token that lost its place is still found
CONTEXT = 64  # or the model's own, where that is shorter
_MAX_PROMPT = 48
_PROMPTS = (
    "The capital of France is Paris, and the capital of Italy is Rome. The capital of Germany is",
    "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11,",
    "def add(a, b):\n    return a +",
    "Once upon a time there was a little girl who lived in a village near the",
    "Water boils at one hundred degrees; it freezes at zero degrees. Ice is",
    "日本の首都は東京です。フランスの首都は",
)


@dataclass(frozen=True, slots=True)
class Measured:
    next_tokens: tuple[NextToken, ...]  # ASKED of each
    numerics_id: str


def prompts(tokenizer: Tokenizer, max_seq_len: int) -> list[tuple[int, ...]]:
    """Ids of beginnings of the texts: a quarter, a half, three quarters and all of each, and room for one more token.

    A vocabulary that lacks a text's letters gets ids spread over it instead.
    """
    longest = min(_MAX_PROMPT, max_seq_len - 1)
    found: list[tuple[int, ...]] = []
    for number, text in enumerate(_PROMPTS):
        ids = tokenizer.encode(text)[:longest]
        if len(ids) < min(4, longest):
            ids = [(7919 * (number + 1) * (i + 1)) % tokenizer.vocab_size for i in range(min(16, longest))]
        found += [tuple(ids[: max(1, len(ids) * quarter // 4)]) for quarter in (1, 2, 3, 4)]
    return list(dict.fromkeys(found))


def measured(path: Path, asked: Sequence[tuple[int, ...]] | None, *, threads: int | None) -> Measured:
    """The likeliest tokens after each prompt (None: after `prompts`).

    Raises HerdError when the model cannot run, of which FormatError names weights that are not finite numbers.
    """
    checkpoint = open_checkpoint(path)
    max_seq_len = checkpoint.config.max_seq_len
    options = EngineOptions(context=min(CONTEXT, max_seq_len), kv_dtype="f32", threads=threads)
    with LLM.load(path, options=options, offline=True) as llm:
        chosen = prompts(llm.tokenizer, max_seq_len) if asked is None else list(asked)
        params = SamplingParams(max_tokens=1, temperature=0.0, logprobs=ASKED, ignore_eos=True, speculate=False)
        answers = llm.generate([list(ids) for ids in chosen], params)
        for answer in answers:
            if answer.finish_reason is FinishReason.ERROR or not answer.logprobs:
                raise _failure(checkpoint, answer.error or "no log-probabilities")
        tops = [tuple((i, round(lp, 6)) for i, lp in answer.logprobs[0].top) for answer in answers]
        return Measured(tuple(map(NextToken, chosen, tops)), llm.numerics_id)


def _failure(checkpoint: Checkpoint, why: str) -> HerdError:
    """Weights that are not finite come first, because logits that are not say nothing of where it began."""
    name = first_not_finite(checkpoint)
    if name is not None:
        return FormatError(f"{name} holds weights that are not finite numbers (NaN or infinity)")
    return EngineError(f"a prompt could not be computed: {why}; all weights are finite numbers")
