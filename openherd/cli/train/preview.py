"""herd train preview: what of a row is learnt."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from openherd.cli import output
from openherd.cli.flags import JsonFlag, OfflineFlag
from openherd.cli.train.data_flags import ModelFlag, RenameFlag, TemplateFlag, parse_renames
from openherd.errors import OptionError


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
    from openherd.checkpoints.free_place import require_new
    from openherd.train.encoding import Encoded, RowEncoder
    from openherd.train.preview import as_page, as_terminal
    from openherd.train.rows import RowError
    from openherd.train.sources import find_files, read_rows
    from openherd.train.tokenizer_source import open_tokenizer

    if rows < 1:
        raise OptionError(f"--rows must be at least 1, not {rows}")
    if html is not None:
        require_new(html)
    source = open_tokenizer(model, template=template, offline=offline)
    tokenizer = source.tokenizer()
    encoder = RowEncoder(tokenizer, source.chat_template(tokenizer))
    shown: list[tuple[str, Encoded]] = []
    for file in find_files(list(files)):
        for row, _ in zip(read_rows(file, parse_renames(rename)), range(rows), strict=False):
            if isinstance(row, RowError):
                raise row
            shown += [(row.where, document) for document in encoder.encode(row.row, row.where)]
    if html is not None:
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
