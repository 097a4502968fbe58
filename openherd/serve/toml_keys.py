"""TOML tables against options dataclasses: which keys there are, what each takes, where it stands, how it is put."""

from __future__ import annotations

import difflib
import json
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from openherd.errors import InputError, OptionError

# Table (the number of the [[models]] it is in, None at the top) and key, to its line.
Lines = dict[tuple[int | None, str], int]

_HEADER = re.compile(r"\s*\[{1,2}\s*(?P<name>[^\]]*?)\s*\]")
_KEY = re.compile(r"""\s*(?:"(?P<quoted>[^"\\]*)"|'(?P<literal>[^']*)'|(?P<bare>[A-Za-z0-9_-]+))\s*[=.]""")
_KINDS = {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}


@dataclass(frozen=True, slots=True)
class Place:
    """A line of a file, where it is known."""

    path: Path
    line: int | None

    def __str__(self) -> str:
        return str(self.path) if self.line is None else f"{self.path}, line {self.line}"


def key_of(name: str) -> str:
    """A field's key, spelled as its flag."""
    return name.replace("_", "-")


def lines_of_keys(text: str) -> Lines:
    """Where keys stand: for messages only, so a key inside a string of several lines does no harm."""
    lines: Lines = {}
    table: int | None = None
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(line):
            lines.setdefault((None, header["name"].partition(".")[0]), number)
            if header["name"] == "models":
                table = 0 if table is None else table + 1
        elif key := _KEY.match(line):
            lines.setdefault((table, key["quoted"] or key["literal"] or key["bare"] or ""), number)
    return lines


def read_table(
    table: Mapping[str, Any],
    groups: Sequence[type[Any] | None],
    path: Path,
    lines: Lines,
    number: int | None,
) -> Iterator[dict[str, Any]]:
    """For each group of options the fields that the table sets. Raises `InputError` for the first wrong key."""
    known = {key_of(f.name): (group, f.name) for group in groups if group is not None for f in fields(group)}
    found: list[dict[str, Any]] = [{} for _ in groups]
    for key, value in table.items():
        place = Place(path, lines.get((number, key), lines.get((None, key))))
        if key not in known:
            raise InputError(f"{place}: {_unknown(key, list(known), number)}")
        group, name = known[key]
        try:
            checked = _checked(key, value, _hints(group)[name])  # type: ignore[arg-type]  # mypy: unhashable
            group(**{name: checked})  # its range
        except OptionError as error:
            message = str(error.args[0]).replace(f"--{key}", key, 1).replace(name, key, 1)
            raise InputError(f"{place}: {message}", hint=error.hint) from None
        found[groups.index(group)][name] = checked
    return iter(found)


def toml_of(value: Any) -> str:
    """A value as TOML writes it: JSON's strings are among TOML's, but for the delete character."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(toml_of, value))}]"
    return repr(value)


def _unknown(key: str, known: list[str], number: int | None) -> str:
    shown = key if len(key) <= 80 else f"{key[:80]}..."
    near = difflib.get_close_matches(key.lower().replace("_", "-"), [*known, "models", "offline"], n=1)
    where = "a [[models]] table" if number is not None else "the top of the file"
    if near:
        return f"unknown key {shown!r}; did you mean {near[0]}?"
    return f"unknown key {shown!r}; {where} takes {', '.join(known)}"


@cache
def _hints(group: type[Any]) -> dict[str, Any]:
    return get_type_hints(group)


def _checked(key: str, value: Any, hint: Any) -> Any:
    """The value as the field takes it. Raises `OptionError` that says what is expected."""
    parts = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    kind = next(part for part in parts if part is not type(None))
    if get_origin(kind) is Literal:
        if value in get_args(kind) and isinstance(value, str):
            return value
        raise OptionError(f"{key} must be {' or '.join(map(toml_of, get_args(kind)))}, not {_shown(value)}")
    if get_origin(kind) is tuple:
        values = [value] if isinstance(value, str) else value
        if isinstance(values, list) and all(isinstance(entry, str) for entry in values):
            return tuple(values)
        raise OptionError(f"{key} must be a list of strings, not {_shown(value)}")
    if kind is float and isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53:
        return float(value)
    if isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    raise OptionError(f"{key} must be {_KINDS[kind]}, not {_shown(value)}")


def _shown(value: Any) -> str:
    text = {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
