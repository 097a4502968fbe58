"""Frozen dataclasses as JSON and back: every field by its name, nothing missing, nothing unknown, every type checked.

For facts that a run keeps beside its weights. Known are bool, int, float, str, None, literals, tuples and sequences,
frozen sets, mappings from numbers, and dataclasses of these. Source of the types is the dataclass itself.
"""

from __future__ import annotations

import math
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from openherd.errors import FormatError

T = TypeVar("T")
_SEQUENCES = (tuple, Sequence, frozenset)


def as_plain(value: object) -> Any:
    """What `json.dumps` takes; sets are sorted."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: as_plain(getattr(value, field.name)) for field in fields(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): as_plain(item) for key, item in value.items()}
    assert isinstance(value, Iterable), type(value)
    return [as_plain(item) for item in (sorted(value) if isinstance(value, frozenset) else value)]


def from_plain(kind: type[T], value: object, where: str) -> T:
    """The dataclass that `as_plain` made `value` of. Raises FormatError, which begins with `where` and the field."""
    if not isinstance(value, dict):
        raise FormatError(f"{where} must be an object")
    hints = get_type_hints(kind)
    names = [field.name for field in fields(cast(Any, kind))]
    if unknown := sorted(value.keys() - set(names)):
        raise FormatError(f"{where}: {str(unknown[0])[:80]!r} is not known")
    if missing := [name for name in names if name not in value]:
        raise FormatError(f"{where}: {missing[0]!r} is missing")
    return kind(**{name: _read(hints[name], value[name], f"{where}: {name}") for name in names})


def _read(kind: Any, value: Any, where: str) -> Any:
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):  # None or one other
        return None if value is None else _read(next(k for k in inner if k is not type(None)), value, where)
    if origin is Literal:
        return value if value in inner else _refuse(where, f"must be one of {', '.join(map(repr, inner))}")
    if origin in _SEQUENCES:
        items = value if isinstance(value, list) else _refuse(where, "must be a list")
        at_once = inner[0] in (int, str) and all(type(item) is inner[0] for item in items)  # a vocabulary is long
        made = tuple(items) if at_once else tuple(_read(inner[0], item, where) for item in items)
        return frozenset(made) if origin is frozenset else made
    if origin is Mapping:
        items = value if isinstance(value, dict) else _refuse(where, "must be an object")
        return {_key(inner[0], key, where): _read(inner[1], item, where) for key, item in items.items()}
    if is_dataclass(kind):
        return from_plain(cast(Any, kind), value, where)
    if kind is float and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    if type(value) is not kind:
        _refuse(where, f"must be a {kind.__name__}")
    return value


def _key(kind: Any, key: str, where: str) -> Any:
    if kind is str:
        return key
    return int(key) if key.isascii() and key.isdigit() and len(key) < 10 else _refuse(where, "must map numbers")


def _refuse(where: str, what: str) -> Any:
    raise FormatError(f"{where} {what}")
