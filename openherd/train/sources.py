"""Files of training data, read row by row in bounded memory: JSONL, JSON lists, text, Markdown, parquet.

A folder stands for the files in it (and below it) with a known ending, in the order of their names, so that the same
folder is read the same way everywhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from openherd.errors import InputError
from openherd.train.rows import Row, RowError, parse_row, unused_keys

TEXT_ENDINGS = (".txt", ".md")
ENDINGS = (".jsonl", ".json", ".parquet", *TEXT_ENDINGS)
MAX_LINE_BYTES = 64 << 20
"""A longer line of JSONL is refused: it would be read whole."""
MAX_FILE_BYTES = 1 << 30
"""A longer JSON list or text is refused: they are read whole."""


@dataclass(frozen=True, slots=True)
class LocatedRow:
    row: Row
    where: str  # FILE:LINE, as a person opens it
    unused: frozenset[str] = frozenset()  # keys that take no part


def find_files(paths: list[Path]) -> list[Path]:
    """The data files that `paths` name, folders opened. Raises InputError for what is missing or no data."""
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in ENDINGS and p.is_file())
            if not inside:
                raise InputError(f"{path} holds no data: no file ends in {', '.join(ENDINGS)}")
            files += inside
        elif not path.exists():
            raise InputError(f"{path} does not exist")
        elif path.suffix.lower() not in ENDINGS:
            raise InputError(f"{path} is no data file: it should end in {', '.join(ENDINGS)}")
        elif not path.is_file():  # a pipe has no end to wait for, a device none at all; data is read twice
            raise InputError(f"{path} is not a regular file")
        else:
            files.append(path)
    if not files:
        raise InputError("no data was named", hint="give files or folders")
    twice = {file for file in files if files.count(file) > 1}
    if twice:
        raise InputError(f"{min(twice)} is named twice, so its rows would count twice")
    return files


def read_rows(file: Path, renames: Mapping[str, str] | None = None) -> Iterator[LocatedRow | RowError]:
    """The rows of one file; a row that cannot be read comes as its error (file, line, what is expected).

    `renames`: keys of the file that mean one of ours, such as question: instruction.
    Raises RowError for a file that is no data as a whole, and InputError for an unreadable one.
    """
    for where, value in read_values(file):
        yield value if isinstance(value, RowError) else _row(_renamed(value, renames or {}), where)


def read_values(file: Path) -> Iterator[tuple[str, object]]:
    """Where each row stands, and its JSON value whatever its form, or the RowError of a line that is no JSON."""
    readers = {".jsonl": _jsonl, ".json": _json, ".parquet": _parquet}
    try:
        yield from readers.get(file.suffix.lower(), _text)(file)
    except OSError as why:
        raise InputError(f"cannot read {file}: {why.strerror}") from None


def _jsonl(file: Path) -> Iterator[tuple[str, object]]:
    with file.open("rb") as lines:
        number = 0
        while line := lines.readline(MAX_LINE_BYTES + 1):
            number += 1
            where = f"{file}:{number}"
            if len(line) > MAX_LINE_BYTES:
                raise RowError(f"{where}: the line is longer than {MAX_LINE_BYTES >> 20} MiB")
            if line.strip():
                yield where, _line(line, where)


def _json(file: Path) -> Iterator[tuple[str, object]]:
    rows = _parsed(_whole(file), str(file))
    if not isinstance(rows, list):
        raise RowError(f"{file}: a .json file must hold a list of rows; one row a line is .jsonl")
    for number, value in enumerate(rows, 1):
        yield f"{file}:row {number}", value


def _text(file: Path) -> Iterator[tuple[str, object]]:
    """A text or Markdown file is one document."""
    try:
        text = _whole(file).decode()
    except UnicodeDecodeError as why:
        raise RowError(f"{file}: not UTF-8 text: byte {why.start} is 0x{why.object[why.start]:02x}") from None
    if text.strip():
        yield f"{file}:1", {"text": text}


def _parquet(file: Path) -> Iterator[tuple[str, object]]:
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise InputError(f"{file}: parquet needs pyarrow", hint="pip install 'openherd[train]'") from None
    import pyarrow

    try:
        number = 0
        for batch in parquet.ParquetFile(file).iter_batches(batch_size=256):
            for value in batch.to_pylist():
                number += 1
                yield f"{file}:row {number}", {key: item for key, item in value.items() if item is not None}
    except (pyarrow.ArrowException, OSError) as why:
        raise InputError(f"{file} is not usable parquet: {str(why)[:200]}") from None


def _line(line: bytes, where: str) -> object:
    try:
        return _parsed(line, where)
    except RowError as why:
        return why


def _renamed(value: object, renames: Mapping[str, str]) -> object:
    if not isinstance(value, dict):
        return value
    kept = {key: item for key, item in value.items() if key not in renames}
    return kept | {renames[key]: item for key, item in value.items() if key in renames}


def _row(value: object, where: str) -> LocatedRow | RowError:
    try:
        row = parse_row(value, where)
    except RowError as why:
        return why
    return LocatedRow(row, where, unused_keys(value) if isinstance(value, dict) else frozenset())


def _whole(file: Path) -> bytes:
    size = file.stat().st_size
    if size > MAX_FILE_BYTES:
        raise InputError(f"{file} has {size} bytes; the most is {MAX_FILE_BYTES}", hint="split it, or use .jsonl")
    return file.read_bytes()


def _parsed(data: bytes, where: str) -> object:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as why:  # ValueError: bad JSON, bad UTF-8, an endless number
        raise RowError(f"{where}: not JSON: {str(why)[:120]}") from None
