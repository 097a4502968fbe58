"""herd bench: how fast a model runs here, beside what the machine could do at best; or how a server bears load."""

from __future__ import annotations

from dataclasses import fields
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from openherd.cli import output
from openherd.cli.flags import JsonFlag, OfflineFlag, warn_of_many_threads
from openherd.errors import HerdError, OptionError
from openherd.options import BenchOptions
from openherd.workshop.load.options import LoadOptions

if TYPE_CHECKING:
    from openherd.workshop.bench import Report
    from openherd.workshop.load.report import LoadReport

BenchFlags = Annotated[BenchOptions, Parameter(name="*")]
LoadFlags = Annotated[LoadOptions, Parameter(name="*")]
BENCH = BenchOptions()
LOAD = LoadOptions()


def bench(
    model: str | None = None,
    /,
    *,
    options: BenchFlags = BENCH,
    load: LoadFlags = LOAD,
    offline: OfflineFlag = False,
    json: JsonFlag = False,
) -> None:
    """Measure how fast a model runs on this machine, beside the machine's own limits; or how a server bears load.

    Parameters
    ----------
    model
        A catalogue name or a file; none: the default model. With --server: its name there; none: the first it lists.
    """
    report = _local(model, options, offline=offline) if load.server is None else _server(model, options, load)
    if json:
        output.document(report.document())
    else:
        print("\n".join(report.table()))
    for warning in report.warnings:
        output.note(f"herd: warning: {warning}")


def _local(model: str | None, options: BenchOptions, *, offline: bool) -> Report:
    warn_of_many_threads(options.threads)

    from openherd.workshop.bench import run_bench

    return run_bench(model, options, offline=offline, say=_say)


def _server(model: str | None, options: BenchOptions, load: LoadOptions) -> LoadReport:
    """--offline changes nothing: the address that was given is all that is contacted."""
    if stray := next((f.name for f in fields(options) if getattr(options, f.name) != f.default), None):
        raise OptionError(f"--{stray} is about this machine's own speed, and --server measures another's")
    if find_spec("httptools") is None:
        raise HerdError(
            "herd bench --server needs httptools, which is not installed",
            hint="try, in openherd's folder: pip install '.[serve]'",
        )

    from openherd.workshop.load.report import run_load

    return run_load(model, load, say=_say)


def _say(text: str) -> None:
    output.note(f"herd: {text}")
