"""herd compare: how far one model is from another."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from openherd.cli import output
from openherd.cli.flags import ENGINE, JsonFlag, OfflineFlag, warn_of_many_threads
from openherd.cli.texts import read_text
from openherd.errors import InputError
from openherd.options import EngineOptions, help_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from openherd.workshop.compare import Compared, TensorDifference

TOKENS = 4096
CONTEXT = 512
SHOWN_TENSORS = 8


def compare(
    a: Annotated[str, Parameter(allow_leading_hyphen=True)],
    b: Annotated[str, Parameter(allow_leading_hyphen=True)],
    file: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    /,
    *,
    context: int = CONTEXT,
    tokens: int = TOKENS,
    no_tensors: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    threads: Annotated[int | None, Parameter(help=help_text(EngineOptions, "threads"))] = ENGINE.threads,
    offline: OfflineFlag = False,
    json: JsonFlag = False,
) -> None:
    """Say how far model B is from model A: divergence of their next-token distributions over a text, and the tensors
    that differ most. They must have the same tokenizer.

    Parameters
    ----------
    a
        The model to measure from: a catalogue name, a file or a folder.
    b
        The other.
    file
        The text, in UTF-8; - reads standard input; none: a chapter of a book that comes with openherd.
    context
        Tokens of a chunk; each is read by itself.
    tokens
        How many tokens of the text.
    no_tensors
        Leave the tensors out.
    """
    if tokens < 2 or context < 2:
        raise InputError("--tokens and --context must be at least 2")
    warn_of_many_threads(threads)

    from openherd.store.progress import TerminalProgress
    from openherd.store.resolve import resolve
    from openherd.workshop.compare import compare_models
    from openherd.workshop.texts import DEFAULT_TEXT, default_text

    name, text = (DEFAULT_TEXT, default_text()) if file is None else (Path(file).name, read_text(file))
    progress = TerminalProgress()
    path_a, path_b = (resolve(ref, offline=offline, progress=progress) for ref in (a, b))
    result = compare_models(
        path_a,
        path_b,
        text,
        context=context,
        max_tokens=tokens,
        threads=threads,
        with_tensors=not no_tensors,
        progress=progress,
    )
    if json:
        output.document(_document(result, name))
    else:
        output.lines(_lines(result, name))


def _document(result: Compared, text: str) -> dict[str, Any]:
    from openherd.workshop.divergence import document

    return {
        "a": str(result.path_a),
        "b": str(result.path_b),
        "text": text,
        "divergence": document(result.divergence),
        "tensors": None if result.tensors is None else [_entry(tensor) for tensor in result.tensors],
    }


def _entry(tensor: TensorDifference) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "type_a": tensor.type_a,
        "type_b": tensor.type_b,
        "relative_error": tensor.relative_error if math.isfinite(tensor.relative_error) else None,
    }


def _lines(result: Compared, text: str) -> Iterator[str]:
    from openherd.workshop.divergence import lines

    yield f"{result.path_b} from {result.path_a}"
    yield f"  compared on      {text}, {result.divergence.positions} positions in {result.divergence.chunks} chunks"
    yield from lines(result.divergence)
    if result.tensors is None:
        if result.why_no_tensors:
            yield f"  tensors          not compared: {result.why_no_tensors}"
        return
    yield from _tensor_lines([tensor for tensor in result.tensors if tensor.relative_error])


def _tensor_lines(differing: Sequence[TensorDifference]) -> Iterator[str]:
    if not differing:
        yield "  tensors          all equal"
        return
    yield from _alone_line("A", [tensor.name for tensor in differing if tensor.type_b is None])
    yield from _alone_line("B", [tensor.name for tensor in differing if tensor.type_a is None])
    shared = [tensor for tensor in differing if tensor.type_a is not None and tensor.type_b is not None][:SHOWN_TENSORS]
    if shared:
        yield "  worst tensors    difference of the weights, root mean square, relative"
        width = max(len(tensor.name) for tensor in shared)
        for t in shared:
            yield f"    {t.name:{width}}  {t.type_a} and {t.type_b:5} {_error(t.relative_error)}"


def _alone_line(model: str, names: Sequence[str]) -> Iterator[str]:
    if names:
        others = f" and {len(names) - SHOWN_TENSORS} more" if len(names) > SHOWN_TENSORS else ""
        yield f"  only in {model}        {', '.join(names[:SHOWN_TENSORS])}{others}"


def _error(relative: float) -> str:
    if math.isnan(relative):
        return "not finite numbers"
    return "A is all zero" if math.isinf(relative) else f"{relative:8.3%}"
