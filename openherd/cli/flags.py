"""Option groups as flags: the dataclasses of `openherd.options`, flattened, with types a command line can spell."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter, Token

from openherd.cli import output
from openherd.errors import InputError, OptionError
from openherd.options import EngineOptions, SamplingParams, help_text

JsonFlag = Annotated[
    bool, Parameter(name="--json", negative=(), show_default=False, help="One JSON document on standard output.")
]
OfflineFlag = Annotated[
    bool, Parameter(name="--offline", negative=(), show_default=False, help="Fetch nothing, whatever is missing.")
]


def _biases(type_: Any, tokens: Sequence[Token]) -> dict[int, float]:
    """`ID=BIAS,ID=BIAS` as a dictionary."""
    try:
        pairs = [pair.split("=") for pair in tokens[0].value.split(",")]
        return {int(token_id): float(bias) for token_id, bias in pairs}
    except ValueError:
        raise OptionError(
            f"--logit-bias is ID=BIAS,ID=BIAS with whole token ids, not {tokens[0].value!r}",
            hint="try: --logit-bias 42=-100,7=1.5",
        ) from None


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class SamplingFlags(SamplingParams):
    """`SamplingParams`, each field a flag; only fields that need their own spelling are repeated."""

    logit_bias: Annotated[
        dict[int, float],
        Parameter(
            accepts_keys=False,
            converter=_biases,
            n_tokens=1,
            metavar="ID=BIAS,...",
            show_default=False,
            help=help_text(SamplingParams, "logit_bias"),
        ),
    ] = field(default_factory=dict)
    stop: Annotated[
        tuple[str, ...],
        Parameter(allow_leading_hyphen=True, show_default=False, help=help_text(SamplingParams, "stop")),
    ] = ()
    stop_token_ids: Annotated[
        tuple[int, ...], Parameter(show_default=False, help=help_text(SamplingParams, "stop_token_ids"))
    ] = ()


def _conversation_temperature() -> float:
    """Nobody is there to ask a pipe's question again, so its answers are the likeliest ones, the same every time."""
    return SamplingParams().temperature if sys.stdin.isatty() else 0.0


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class ConversationFlags(SamplingFlags):
    """`SamplingFlags` of a conversation, whose temperature depends on who asks; `n` and `logprobs` mean nothing there,
    are not shown, and are refused by the verb."""

    temperature: Annotated[
        float,
        Parameter(
            show_default=False,
            help=f"{help_text(SamplingParams, 'temperature')} [default: {SamplingParams().temperature}; in a pipe 0]",
        ),
    ] = field(default_factory=_conversation_temperature)
    n: Annotated[int, Parameter(show=False)] = SamplingParams().n
    logprobs: Annotated[int | None, Parameter(show=False)] = SamplingParams().logprobs


EngineFlags = Annotated[EngineOptions, Parameter(name="*")]

SAMPLING = SamplingFlags()
ENGINE = EngineOptions()
"""Defaults for a verb's signature: `params: SamplingFlags = SAMPLING, engine: EngineFlags = ENGINE`."""


def require_text(given: Mapping[str, str | None]) -> None:
    """Refuse arguments that are not UTF-8: their stray bytes would reach the model as other characters."""
    for flag, text in given.items():
        if text is not None and any("\ud800" <= character <= "\udfff" for character in text):
            raise InputError(f"{flag} is not UTF-8 text")


def start_lightly() -> None:
    """Before NumPy is imported: its linear algebra would start a thread for each core, which spin for 40 ms beside the
    start. The core multiplies, so one is enough; who sets the variable keeps it."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def warn_of_many_threads(asked: int | None) -> None:
    """Threads that share a core wait for each other at every step: 100 on two cores write a token a second.

    Raises OptionError for a number out of range, which is to be said before any work.
    """
    EngineOptions(threads=asked)
    from openherd.kernels.cores import compute_threads, usable_cores

    threads, cores = compute_threads(asked), usable_cores()
    if threads > cores:
        output.note(f"herd: warning: {threads} threads on {cores} usable cores are slow; try: --threads {cores}")


def parse_adapter(adapter: str | None) -> tuple[str | None, dict[str, str]]:
    """`--adapter NAME=PATH` or `PATH`: the name that requests choose, and the path of each name."""
    if adapter is None:
        return None, {}
    name, equals, path = adapter.partition("=")
    if not equals:
        name, path = Path(adapter).stem, adapter
    if not name or not path:
        raise OptionError(f"--adapter is NAME=PATH or PATH, not {adapter!r}")
    return name, {name: path}
