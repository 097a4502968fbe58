"""herd verify: whether a copy of a model is what it was made as."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from openherd.cli import output
from openherd.cli.flags import ENGINE, JsonFlag, OfflineFlag, warn_of_many_threads
from openherd.errors import FormatError, InputError
from openherd.options import EngineOptions, help_text
from openherd.visible import visible

if TYPE_CHECKING:
    from openherd.workshop.verify.findings import Report

_MARKS = {"right": "ok", "differs": "DIFFERS", "unchecked": "NOT CHECKED"}


def verify(
    model: str | None = None,
    /,
    *,
    record: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    golden: Annotated[str | None, Parameter(show_default=False)] = None,
    against: Annotated[str | None, Parameter(show_default=False)] = None,
    threads: Annotated[int | None, Parameter(help=help_text(EngineOptions, "threads"))] = ENGINE.threads,
    offline: OfflineFlag = False,
    json: JsonFlag = False,
) -> int:
    """Check a model against the golden values that came with it: its facts, every tensor, and what it computes.

    Ends with status 1 when anything differs, or could not be checked.

    Parameters
    ----------
    model
        A catalogue name or a file; none: the default model.
    record
        Make the golden values from this copy, which you trust, and keep them with it.
    golden
        A file of golden values, or a model that carries them, instead of those that came with the model; with
        --record, the file to write, which ends in .json.
    against
        Check the server at this address (http://HOST:PORT) instead of the file: ids, rendered chats, log-probabilities.
    """
    if record and against:
        raise InputError("--record makes golden values from a file, not from a server; leave out --against")
    warn_of_many_threads(threads)
    from openherd.store.resolve import resolve

    path = resolve(model, offline=offline)
    elsewhere = None if golden is None else Path(golden)
    if record:
        return _record(path, elsewhere, threads, json)

    from openherd.workshop.verify.run import golden_for, verify

    values = golden_for(path, elsewhere)
    if against is not None:
        from openherd.workshop.verify.against import verify_server

        report = verify_server(against, path, values)
    else:
        report = verify(path, values, threads=threads, say=lambda text: None if json else output.note(f"herd: {text}"))
    if json:
        output.document({"model": str(path), "golden_sha256": values.sha256, **report.document()})
    else:
        _print(report)
    return 0 if report.passed else 1


def _record(path: Path, to: Path | None, threads: int | None, json: bool) -> int:
    from openherd.checkpoints.new_file import write_new_text
    from openherd.workshop.golden.places import attach
    from openherd.workshop.golden.record import record

    if to is None and _is_fetched(path):
        raise InputError(
            f"{path} is a fetched model, whose checksum is pinned; it cannot be changed",
            hint="keep the golden values in a file of their own: --record --golden FILE.json",
        )
    if to is not None:
        _check_golden_target(to)
    values = record(path, threads=threads, say=lambda text: None if json else output.note(f"herd: {text}"))
    if to is None:
        to = attach(values, path)
    else:
        write_new_text(to.resolve(), values.to_json() + "\n")
    if json:
        output.document({"model": str(path), "golden": str(to), "golden_sha256": values.sha256})
    else:
        print(f"recorded in {visible(str(to))}, sha256 {values.sha256}")
    return 0


def _check_golden_target(to: Path) -> None:
    """Recording again over golden values is meant; over a model or anything else it would destroy it. By its `.json` a
    file of golden values is told from a model."""
    from openherd.workshop.golden.places import golden_of

    is_json = to.suffix == ".json"
    if not os.path.lexists(to):
        if not is_json:
            raise InputError(f"golden values in {to} would not be found again", hint="name a file that ends in .json")
        return
    try:
        is_golden = is_json and golden_of(to) is not None
    except FormatError:
        is_golden = False
    if not is_golden:
        raise InputError(
            f"{to} exists and holds no golden values, so it is not overwritten",
            hint="name a new file that ends in .json",
        )


def _is_fetched(path: Path) -> bool:
    from openherd.store.home import models_folder

    return os.path.realpath(path).startswith(os.path.realpath(models_folder()) + os.sep)


def _print(report: Report) -> None:
    for finding in report.findings:
        detail = f"  {finding.detail}" if finding.detail else ""
        print(visible(f"{_MARKS[finding.outcome]:11}  {finding.name}{detail}"))
        for line in finding.lines:
            print(visible(f"             {line}"))
    if report.passed:
        account = f", {', '.join(report.in_between)} in between by the file's own account" if report.in_between else ""
        print(f"verified: {report.strength}{account}")
    else:
        differ = sum(f.outcome == "differs" for f in report.findings)
        unchecked = sum(f.outcome == "unchecked" for f in report.findings)
        print(f"not verified: {differ} of {len(report.findings)} checks differ, {unchecked} could not be made")
