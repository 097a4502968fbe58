"""herd score: how well a model predicts a text."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from openherd.cli import output
from openherd.cli.flags import JsonFlag, OfflineFlag
from openherd.errors import InputError
from openherd.options import EngineOptions

if TYPE_CHECKING:
    from openherd.llm import Score

MAX_FILE_BYTES = 256 << 20


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class ScoreFlags(EngineOptions):
    """`EngineOptions`, whose context is here what a token may be predicted from."""

    context: Annotated[
        int | None, Parameter(help="Tokens of a chunk; each chunk is scored by itself, its first token is not.")
    ] = 512


ENGINE = ScoreFlags()


def score(
    model: str,
    file: str | None = None,
    /,
    *,
    max_tokens: int | None = None,
    no_special: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    engine: ScoreFlags = ENGINE,
    offline: OfflineFlag = False,
    json: JsonFlag = False,
) -> None:
    """Measure how well a model predicts a text: mean negative log-likelihood, perplexity, bits per byte.

    herd score FILE scores with the default model.

    Parameters
    ----------
    model
        A catalogue name or a file; may be left out.
    file
        The text, in UTF-8; - reads standard input.
    max_tokens
        Score only so many tokens from the beginning of the text.
    no_special
        Control tokens written in the text are plain text, and no beginning-of-sequence token is put before it.
    """
    if max_tokens is not None and max_tokens < 2:
        raise InputError(f"--max-tokens must be at least 2, not {max_tokens}")
    ref, name = (None, model) if file is None else (model, file)
    text = _read(name)

    from openherd.llm import LLM

    with LLM.load(ref, options=engine, offline=offline) as llm:
        context = llm.context if engine.context is None else engine.context
        result = llm.score(text, context=context, special=not no_special, max_tokens=max_tokens)
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


def _read(name: str) -> str:
    """The text of a file or of standard input. Raises `InputError` for what is not UTF-8 text."""
    if name == "-":
        data, shown = sys.stdin.buffer.read(MAX_FILE_BYTES + 1), "standard input"
    else:
        shown = name
        try:
            with Path(name).open("rb") as file:
                data = file.read(MAX_FILE_BYTES + 1)
        except OSError as why:
            raise InputError(f"cannot read {name}: {why.strerror}", hint="usage: herd score [MODEL] FILE") from None
    if len(data) > MAX_FILE_BYTES:
        raise InputError(f"{shown} is longer than {MAX_FILE_BYTES >> 20} MiB; score a part of it")
    try:
        return data.decode()
    except UnicodeDecodeError as why:
        raise InputError(f"{shown} is not UTF-8 text: byte {why.start} is 0x{data[why.start]:02x}") from None


def _document(result: Score) -> dict[str, object]:
    return {
        "tokens": len(result.token_ids),
        "nll": result.nll,
        "perplexity": result.perplexity,
        "bits_per_byte": result.bits_per_byte,
        "token_ids": list(result.token_ids),
        "logprobs": list(result.logprobs),
    }
