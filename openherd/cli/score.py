"""herd score: how well a model predicts a text."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from openherd.cli import assumptions, output
from openherd.cli.flags import ENGINE, JsonFlag, OfflineFlag, warn_of_many_threads
from openherd.cli.texts import read_text
from openherd.errors import EngineError, InputError
from openherd.options import EngineOptions, KVDtype, help_text

if TYPE_CHECKING:
    from openherd.llm import Score

BackendName = Literal["native", "reference"]
CHUNK_TOKENS = 512


def score(
    model: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    file: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    /,
    *,
    context: int = CHUNK_TOKENS,
    max_tokens: int | None = None,
    no_special: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    backend: Annotated[BackendName, Parameter(help=help_text(EngineOptions, "backend"))] = ENGINE.backend,
    threads: Annotated[int | None, Parameter(help=help_text(EngineOptions, "threads"))] = ENGINE.threads,
    kv_dtype: Annotated[KVDtype, Parameter(help=help_text(EngineOptions, "kv_dtype"))] = ENGINE.kv_dtype,
    offline: OfflineFlag = False,
    json: JsonFlag = False,
) -> None:
    """Measure how well a model predicts a text: mean negative log-likelihood, perplexity, bits per byte.

    Parameters
    ----------
    model
        A catalogue name or a file; may be left out, for the default model.
    file
        The text, in UTF-8; - reads standard input.
    context
        Tokens of a chunk; each chunk is scored by itself, all but its first token.
    max_tokens
        Score only so many tokens from the beginning of the text.
    no_special
        Control tokens written in the text are plain text, and no beginning-of-sequence token is put before it.
    """
    if max_tokens is not None and max_tokens < 2:
        raise InputError(f"--max-tokens must be at least 2, not {max_tokens}")
    engine = EngineOptions(context=context, backend=backend, threads=threads, kv_dtype=kv_dtype)
    ref, name = (None, model) if file is None else (model, file)
    if name is None:
        raise InputError("herd score needs a text", hint="try: herd score FILE")
    text = read_text(name)
    warn_of_many_threads(threads)

    from openherd.llm import LLM

    with LLM.load(ref, options=engine, offline=offline) as llm:
        assumptions.say(llm.assumed)
        result = llm.score(text, context=context, special=not no_special, max_tokens=max_tokens)
    if not math.isfinite(result.perplexity):
        raise EngineError(
            "the model gives this text no finite probability; weights that are damaged or not numbers do that"
        )
    if json:
        output.document(_document(result))
    else:
        print(
            f"perplexity {result.perplexity:.4f}, {result.bits_per_byte:.4f} bits per byte, "
            f"negative log-likelihood {result.nll:.4f} a token"
        )
        output.note(
            f"herd: {len(result.token_ids)} tokens in chunks of {result.context}, {len(result.logprobs)} of them scored"
        )


def _document(result: Score) -> dict[str, object]:
    return {
        "tokens": len(result.token_ids),
        "nll": result.nll,
        "perplexity": result.perplexity,
        "bits_per_byte": result.bits_per_byte,
        "token_ids": list(result.token_ids),
        "logprobs": list(result.logprobs),
    }
