"""herd train prepare: data into tokens and loss masks."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from openherd.cli import output
from openherd.cli.flags import JsonFlag, OfflineFlag
from openherd.cli.train.data_flags import ModelFlag, RenameFlag, TemplateFlag, parse_renames
from openherd.errors import OptionError

if TYPE_CHECKING:
    from openherd.train.prepare import PrepareReport


def prepare(
    *files: Annotated[Path, Parameter(metavar="FILE")],
    out: Path,
    weight: Annotated[list[float] | None, Parameter(negative=(), show_default=False)] = None,
    model: ModelFlag = None,
    template: TemplateFlag = None,
    rename: RenameFlag = None,
    max_tokens: Annotated[int | None, Parameter(show_default=False)] = None,
    skip_bad_rows: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    evaluation: Annotated[list[Path] | None, Parameter(negative=(), show_default=False)] = None,
    offline: OfflineFlag = False,
    json: JsonFlag = False,
) -> int:
    """Encode data into a folder of tokens and loss masks that training maps into memory, and look for what is wrong.

    Reports duplicates, empty answers, likely personal data, and text shared with evaluation sets; removes nothing.

    Parameters
    ----------
    files
        JSONL, JSON, text, Markdown or parquet; folders stand for the files in them.
    out
        The folder to write; it must not exist.
    weight
        How often a file is drawn from, beside the others: one number for each FILE, in order; none: 1 each.
    max_tokens
        Leave out documents with more tokens; how many there were is reported.
    skip_bad_rows
        Leave out rows that cannot be learnt from, and report them; otherwise the first of them ends the work.
    evaluation
        Files or folders whose text must not be trained on; runs of 13 words shared with them are reported.
    """
    from openherd.train.interrupts import Interrupted, Interrupts
    from openherd.train.prepare import WeightedPath
    from openherd.train.prepare import prepare as write
    from openherd.train.tokenizer_source import open_tokenizer

    weights = weight or [1.0] * len(files)
    if len(weights) != len(files):
        raise OptionError(f"--weight must be given once for each of the {len(files)} files, not {len(weights)} times")
    if not all(0 < number < float("inf") for number in weights):
        raise OptionError("--weight must be greater than 0")
    source = open_tokenizer(model, template=template, offline=offline)
    encoder = source.tokenizer()
    try:
        with Interrupts():  # SIGTERM too leaves nothing half written
            report = write(
                [WeightedPath(file, number) for file, number in zip(files, weights, strict=True)],
                out,
                encoder,
                source.chat_template(encoder),
                skip_bad_rows=skip_bad_rows,
                renames=parse_renames(rename),
                max_tokens=max_tokens,
                evaluation=evaluation or (),
                progress=lambda line: output.note(f"herd: {line}"),
            )
    except Interrupted as error:
        return error.exit_status
    if json:
        output.document(_document(report))
    else:
        _show(report)
    return 0


def _document(report: PrepareReport) -> dict[str, object]:
    manifest, left_out = report.folder.manifest, report.left_out
    return {
        "folder": str(report.folder.path),
        "kind": manifest.kind,
        "documents": manifest.documents,
        "tokens": manifest.tokens,
        "learnt": manifest.learnt,
        "sources": [asdict(source) for source in manifest.sources],
        "findings": [
            {"what": what, "rows": count, "first": report.findings.places[what]}
            for what, count in report.findings.counts.most_common()
        ],
        "refused_rows": left_out.refused,
        "refused": left_out.refused_rows,
        "too_long": left_out.too_long,
        "turns_not_learnt": left_out.skipped_turns,
        "unused_keys": dict(left_out.unused),
    }


def _show(report: PrepareReport) -> None:
    from openherd.words import counted

    manifest, left_out = report.folder.manifest, report.left_out
    share = 100 * manifest.learnt / max(1, manifest.tokens)
    documents, tokens = counted(manifest.documents, "document"), counted(manifest.tokens, "token")
    print(f"{documents}, {tokens} ({share:.0f} % learnt) in {report.folder.path}")
    for source in manifest.sources:
        rows, tokens = counted(source.rows, "row"), counted(source.tokens, "token")
        print(f"  {source.path}: {rows}, {tokens}, weight {source.weight:g}")
    for what, count in report.findings.counts.most_common():
        print(f"  {what}: {counted(count, 'row')}, first {', '.join(report.findings.places[what])}")
    if left_out.refused:
        print(f"  left out because nothing can be learnt from them: {counted(left_out.refused, 'row')}")
        for reason in left_out.refused_rows:
            print(f"    {reason}")
    if left_out.too_long:
        print(f"  left out as too long: {counted(left_out.too_long, 'row')}")
    if left_out.skipped_turns:
        print(f"  given but not learnt, since the template rewrites them: {counted(left_out.skipped_turns, 'turn')}")
    if left_out.unused:
        print(f"  keys that take no part: {', '.join(sorted(left_out.unused))}")
