"""herd quantize: a model in fewer bits, and what that cost."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from openherd.cli import output
from openherd.cli.flags import ENGINE, JsonFlag, OfflineFlag, warn_of_many_threads
from openherd.cli.layout import require_gguf_name
from openherd.cli.texts import read_text
from openherd.errors import InputError
from openherd.options import EngineOptions, help_text

if TYPE_CHECKING:
    from openherd.workshop.quantize.run import Text

TOKENS = 4096
Switch = Parameter(negative=(), show_default=False)


def quantize(
    model: Annotated[str, Parameter(allow_leading_hyphen=True)],
    out: Annotated[str, Parameter(allow_leading_hyphen=True)],
    /,
    *,
    type: str,
    calibrate: Annotated[str | None, Parameter(show_default=False)] = None,
    importance: Annotated[str | None, Parameter(show_default=False)] = None,
    evaluate: Annotated[str | None, Parameter(show_default=False)] = None,
    tokens: int = TOKENS,
    no_evaluate: Annotated[bool, Switch] = False,
    no_golden: Annotated[bool, Switch] = False,
    requantize: Annotated[bool, Switch] = False,
    overwrite: Annotated[bool, Switch] = False,
    threads: Annotated[int | None, Parameter(help=help_text(EngineOptions, "threads"))] = ENGINE.threads,
    offline: OfflineFlag = False,
    json: JsonFlag = False,
) -> None:
    """Write a model in fewer bits, and say what that cost: size, distance from the source on a text, worst tensors.

    Parameters
    ----------
    model
        A catalogue name, a file or a folder, of float weights (F32, F16 or BF16).
    out
        The GGUF file to write.
    type
        Q8_0, Q6_K, Q5_K_M, Q5_K_S, Q5_1, Q5_0, Q4_K_M, Q4_K_S, Q4_1, Q4_0, Q3_K_L, Q3_K_M, Q3_K_S or Q2_K.
    calibrate
        A text that is read through the model first: columns of a weight count by how large their inputs are.
    importance
        Where --calibrate writes what it found; without --calibrate: a file to take it from.
    evaluate
        The text to compare both models on; none: a chapter of a book that comes with openherd.
    tokens
        How many tokens of that text.
    no_evaluate
        Do not compare the models.
    no_golden
        Leave the source's golden values out, and do not make any (which runs the source once).
    requantize
        Take a source that is quantised already, whose error stays in the result.
    overwrite
        Replace OUT if it exists, and what --calibrate writes to --importance.
    """
    if tokens < 2:
        raise InputError(f"--tokens must be at least 2, not {tokens}")
    if no_evaluate and evaluate is not None:
        raise InputError("--evaluate and --no-evaluate exclude each other")
    path = Path(os.path.expanduser(out))
    require_gguf_name(path)
    warn_of_many_threads(threads)

    from openherd.store.progress import TerminalProgress
    from openherd.workshop.quantize.run import QuantizeOptions, run_quantize

    options = QuantizeOptions(
        mix=type,
        calibrate=None if calibrate is None else _text(calibrate),
        importance=None if importance is None else Path(os.path.expanduser(importance)),
        evaluate=None if no_evaluate else _text(evaluate),
        tokens=tokens,
        requantize=requantize,
        overwrite=overwrite,
        golden=not no_golden,
        threads=threads,
    )
    report = run_quantize(model, path, options, offline=offline, progress=TerminalProgress())
    if json:
        output.document(report.document())
        return
    output.lines(report.lines())
    output.note(f"herd: written in {report.seconds:.1f} s")


def _text(name: str | None) -> Text:
    from openherd.checkpoints.file_name import file_name
    from openherd.workshop.quantize.run import Text
    from openherd.workshop.texts import DEFAULT_TEXT, default_text

    if name is None:
        return Text(DEFAULT_TEXT, default_text())
    return Text("standard input" if name == "-" else file_name(Path(name)), read_text(name))
