"""Data files to a folder of tokens, row by row.

Each file is read twice, for its sha256 and for its rows; the first one, up to its first good row,
once more for the kind. What stays in memory of a row is a hash (see `doctor`) and where its documents end, not its
text; JSON lists and plain texts are in memory whole while they are read (see `sources`).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from openherd.errors import InputError
from openherd.store.digest import sha256_of
from openherd.tokenizers import ChatTemplate, Tokenizer
from openherd.tokenizers.spec import Strip
from openherd.train.doctor import Doctor, Findings
from openherd.train.encoding import Encoded, RowEncoder
from openherd.train.rows import Preference, RowError
from openherd.train.sources import LocatedRow, find_files, read_rows
from openherd.train.token_file import Kind, Source, TokenFolder, TokenWriter, open_tokens

MAX_REPORTED_ROWS = 20
"""Refused rows that are named one by one; the others are counted."""


@dataclass(frozen=True, slots=True)
class WeightedPath:
    path: Path
    weight: float = 1.0


@dataclass(slots=True)
class LeftOut:
    """What was left out, and why."""

    refused: int = 0
    refused_rows: list[str] = field(default_factory=list)
    skipped_turns: int = 0
    too_long: int = 0
    unused: Counter[str] = field(default_factory=Counter)

    def refuse(self, why: RowError) -> None:
        self.refused += 1
        if len(self.refused_rows) < MAX_REPORTED_ROWS:
            self.refused_rows.append(str(why))


@dataclass(frozen=True, slots=True)
class PrepareReport:
    folder: TokenFolder
    findings: Findings
    left_out: LeftOut


def prepare(
    paths: Sequence[WeightedPath],
    folder: Path,
    tokenizer: Tokenizer,
    template: ChatTemplate | None,
    *,
    skip_bad_rows: bool = False,
    renames: Mapping[str, str] | None = None,
    max_tokens: int | None = None,
    evaluation: Sequence[Path] = (),
    progress: Callable[[str], None] = lambda line: None,
) -> PrepareReport:
    """Encode every row of the data that `paths` name into `folder`, which must not exist yet.

    `skip_bad_rows`: leave rows out that nothing can be learnt from, and report them, instead of refusing the data.
    `renames`: keys of the files that mean one of ours. `max_tokens`: leave out documents that are longer.
    `evaluation`: files whose text must not be trained on.
    Raises RowError, InputError; nothing is left behind then.
    """
    files = [(file, weighted.weight) for weighted in paths for file in find_files([weighted.path])]
    kind = _kind_of([file for file, _ in files], renames)
    encoder, doctor, tally = RowEncoder(tokenizer, template), Doctor(evaluation), LeftOut()
    writer = TokenWriter(
        folder,
        kind,
        vocab_size=tokenizer.vocab_size,
        tokenizer=tokenizer_sha256(tokenizer),
        template=None if template is None else hashlib.sha256(template.source.encode()).hexdigest(),
    )
    with writer:
        for file, weight in files:
            progress(f"reading {file}")
            writer.begin(Source(str(file), sha256_of(file), weight))
            for row in read_rows(file, renames):
                try:
                    located, documents = _encoded(encoder, row, kind)
                except RowError as why:
                    if not skip_bad_rows:
                        raise
                    tally.refuse(why)
                    continue
                tally.unused.update(located.unused)
                tally.skipped_turns += sum(document.skipped_turns for document in documents)
                if max_tokens is not None and max(len(document.ids) for document in documents) > max_tokens:
                    tally.too_long += 1
                    continue
                doctor.look(located)
                writer.add(documents)
        if not writer.num_documents:
            raise InputError("the data holds no row to learn from")
    return PrepareReport(open_tokens(folder), doctor.findings(), tally)


def tokenizer_sha256(tokenizer: Tokenizer) -> str:
    """Of every field of the spec, so that equal hashes mean equal ids. The same tokenizer in another layout, which may
    spell it differently, can have another hash."""
    facts = {field.name: _plain(getattr(tokenizer.spec, field.name)) for field in fields(tokenizer.spec)}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _plain(value: object) -> object:
    """As JSON has it, whatever kind of table a reader made."""
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, Strip):
        return [value.left, value.right]
    if isinstance(value, Mapping):
        return [[key, _plain(item)] for key, item in sorted(value.items())]
    if isinstance(value, frozenset):
        return sorted(value)
    assert isinstance(value, Iterable)
    return list(value)


def _kind_of(files: Sequence[Path], renames: Mapping[str, str] | None) -> Kind:
    """What the first row that can be read is; all others must be the same."""
    for file in files:
        for row in read_rows(file, renames):
            if not isinstance(row, RowError):
                return "preferences" if isinstance(row.row, Preference) else "documents"
    return "documents"


def _encoded(encoder: RowEncoder, row: LocatedRow | RowError, kind: Kind) -> tuple[LocatedRow, list[Encoded]]:
    if isinstance(row, RowError):
        raise row
    if isinstance(row.row, Preference) != (kind == "preferences"):
        raise RowError(f"{row.where}: preferences and other rows cannot be mixed in one folder")
    return row, encoder.encode(row.row, row.where)
