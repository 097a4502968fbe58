"""herd train: a model of one's own. One command a stage; each prints what the next one needs."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from openherd.cli import output
from openherd.cli.flags import JsonFlag, OfflineFlag
from openherd.errors import InputError, OptionError

if TYPE_CHECKING:
    from openherd.tokenizers import ChatTemplate, Tokenizer
    from openherd.train.prepare import PrepareReport

train = App(
    name="train",
    help="Train a model of one's own: a vocabulary, data, and what of it is learnt.",
    help_format="plaintext",
    default_parameter=Parameter(negative_iterable=()),
)

RenameFlag = Annotated[
    list[str] | None,
    Parameter(
        name="--rename",
        negative=(),
        show_default=False,
        help="A key of the files that means one of ours, as THEIRS=OURS: question=instruction. May be repeated.",
    ),
]
ModelFlag = Annotated[
    str | None,
    Parameter(
        name="--model",
        show_default=False,
        help="The model whose tokenizer and chat template count: a catalogue name or a file; none: the default model.",
    ),
]
TemplateFlag = Annotated[
    str | None,
    Parameter(
        name="--template",
        show_default=False,
        help="Another chat template: a Jinja file, or chatml, llama-2 or llama-3; none: the model's own.",
    ),
]


@train.command
def tokenizer(
    *files: Annotated[Path, Parameter(metavar="FILE")],
    out: Path,
    vocab_size: int = 4096,
    json: JsonFlag = False,
) -> None:
    """Train a vocabulary: byte-level BPE with Llama 3's splitting of text.

    Parameters
    ----------
    files
        Text, Markdown, JSONL, JSON or parquet; folders stand for the files in them.
    out
        The folder to write: tokenizer.json and tokenizer_config.json.
    vocab_size
        Tokens, special ones included.
    """
    from openherd.train.tokenizer_training import train_tokenizer

    made = train_tokenizer(list(files), out, vocab_size)
    if json:
        output.document(asdict(made) | {"folder": str(made.folder)})
    else:
        print(f"{made.vocab_size:,} tokens, {made.bytes_per_token:.2f} bytes a token, written to {made.folder}")


@train.command
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
) -> None:
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
    from openherd.train.prepare import WeightedPath
    from openherd.train.prepare import prepare as write

    weights = weight or [1.0] * len(files)
    if len(weights) != len(files):
        raise OptionError(f"--weight must be given once for each of the {len(files)} files, not {len(weights)} times")
    if not all(0 < number < float("inf") for number in weights):
        raise OptionError("--weight must be greater than 0")
    encoder, chat_template = _tokenizer_of(model, template, offline)
    report = write(
        [WeightedPath(file, number) for file, number in zip(files, weights, strict=True)],
        out,
        encoder,
        chat_template,
        skip_bad_rows=skip_bad_rows,
        renames=_renames(rename),
        max_tokens=max_tokens,
        evaluation=evaluation or (),
        progress=lambda line: output.note(f"herd: {line}"),
    )
    if json:
        output.document(_document(report))
    else:
        _show(report)


@train.command
def preview(
    *files: Annotated[Path, Parameter(metavar="FILE")],
    rows: int = 3,
    html: Annotated[Path | None, Parameter(show_default=False)] = None,
    model: ModelFlag = None,
    template: TemplateFlag = None,
    rename: RenameFlag = None,
    offline: OfflineFlag = False,
    json: JsonFlag = False,
) -> None:
    """Show the tokens of a few rows, coloured by whether they are learnt; without colours learnt text stands in ⟦ ⟧.

    Parameters
    ----------
    files
        Data as for herd train prepare.
    rows
        How many rows of each file to show.
    html
        Write a page of HTML with them instead of showing them here.
    """
    from openherd.train.encoding import Encoded, RowEncoder
    from openherd.train.preview import as_page, as_terminal
    from openherd.train.rows import RowError
    from openherd.train.sources import find_files, read_rows

    if rows < 1:
        raise OptionError(f"--rows must be at least 1, not {rows}")
    encoder = RowEncoder(*_tokenizer_of(model, template, offline))
    shown: list[tuple[str, Encoded]] = []
    for file in find_files(list(files)):
        for row, _ in zip(read_rows(file, _renames(rename)), range(rows), strict=False):
            if isinstance(row, RowError):
                raise row
            shown += [(row.where, document) for document in encoder.encode(row.row, row.where)]
    if html is not None:
        if html.exists():
            raise InputError(f"{html} exists already", hint="name another file, or remove it")
        html.write_text(as_page(encoder.tokenizer, shown), encoding="utf-8")
    if json:
        rows_shown = [
            {"row": where, "token_ids": document.ids.tolist(), "learnt": document.mask.tolist()}
            for where, document in shown
        ]
        output.document({"rows": rows_shown})
    elif html is None:
        colour = sys.stdout.isatty()
        for where, document in shown:
            print(f"{where}: {document.num_learnt} of {len(document.ids)} tokens are learnt")
            print(as_terminal(encoder.tokenizer, document, colour=colour) + "\n")
    else:
        print(html)


def _renames(pairs: list[str] | None) -> dict[str, str]:
    renames = {}
    for pair in pairs or ():
        theirs, _, ours = pair.partition("=")
        if not theirs or not ours:
            raise OptionError(f"--rename is THEIRS=OURS, not {pair!r}", hint="try: --rename question=instruction")
        renames[theirs] = ours
    return renames


def _tokenizer_of(model: str | None, template: str | None, offline: bool) -> tuple[Tokenizer, ChatTemplate | None]:
    from openherd.checkpoints import open_checkpoint
    from openherd.llm.templates import template_source
    from openherd.store.resolve import resolve
    from openherd.tokenizers import ChatTemplate, Tokenizer

    checkpoint = open_checkpoint(resolve(model, offline=offline))
    made = Tokenizer(checkpoint.tokenizer)
    source = checkpoint.chat_template if template is None else template_source(template)
    return made, None if source is None else ChatTemplate.of(source, made)


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
    manifest, left_out = report.folder.manifest, report.left_out
    share = 100 * manifest.learnt / max(1, manifest.tokens)
    print(
        f"{manifest.documents:,} documents, {manifest.tokens:,} tokens ({share:.0f} % learnt) in {report.folder.path}"
    )
    for source in manifest.sources:
        print(f"  {source.path}: {source.rows:,} rows, {source.tokens:,} tokens, weight {source.weight:g}")
    for what, count in report.findings.counts.most_common():
        print(f"  {what}: {count:,} rows, first {', '.join(report.findings.places[what])}")
    if left_out.refused:
        print(f"  left out because nothing can be learnt from them: {left_out.refused:,} rows")
        for reason in left_out.refused_rows:
            print(f"    {reason}")
    if left_out.too_long:
        print(f"  left out as too long: {left_out.too_long:,} rows")
    if left_out.skipped_turns:
        print(f"  given but not learnt, since the template rewrites them: {left_out.skipped_turns:,} turns")
    if left_out.unused:
        print(f"  keys that take no part: {', '.join(sorted(left_out.unused))}")
