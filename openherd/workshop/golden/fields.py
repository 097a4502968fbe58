"""Typed, bounded access to the fields of a JSON object that is not trusted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from openherd.errors import FormatError

_MAX_WHOLE = 2**31 - 1
_MAX_NUMBER = 1e38  # of float32, and its square is a number too
_MAX_DEPTH = 16  # of what is only compared: no fact of a model is nested deeper


class Fields:
    """One object; `where` is its place, for messages. Every getter raises FormatError for another type or size."""

    def __init__(self, value: Mapping[str, Any], where: str) -> None:
        self.where = where
        self._value = value
        self._read: set[str] = set()

    def __iter__(self) -> Iterator[str]:
        return iter(self._value)

    def done(self) -> None:
        """Refuse a field that nobody asked for: it could be meant to say something."""
        if unknown := sorted(self._value.keys() - self._read):
            raise FormatError(f"{self.where}: the field {unknown[0][:80]!r} is not known")

    def text(self, name: str, *, most: int) -> str:
        value = self._get(name)
        if not isinstance(value, str) or len(value) > most:
            raise self._wrong(name, f"must be a text of at most {most} characters")
        return value

    def text_or_none(self, name: str, *, most: int) -> str | None:
        return None if self._get(name) is None else self.text(name, most=most)

    def texts(self, *, most: int) -> dict[str, str]:
        """All of the object, as text by text."""
        return {name: self.text(name, most=most) for name in self}

    def whole(self, name: str) -> int:
        value = self._get(name)
        if not _is_whole(value):
            raise self._wrong(name, "must be a whole number from 0 to 2^31 - 1")
        return int(value)

    def number(self, name: str, *, least: float = -_MAX_NUMBER) -> float:
        value = self._get(name)
        if not _is_number(value) or value < least:
            raise self._wrong(name, f"must be a number from {least:g} to {_MAX_NUMBER:g}")
        return float(value)

    def numbers(self, name: str, *, most: int) -> tuple[float, ...]:
        return tuple(map(float, self._list(name, most, _is_number, "finite numbers")))

    def ids(self, name: str, *, most: int) -> tuple[int, ...]:
        return tuple(self._list(name, most, _is_whole, "whole numbers from 0 to 2^31 - 1"))

    def pairs(self, name: str, *, most: int) -> tuple[tuple[int, float], ...]:
        """[[id, number], ...]"""
        return tuple((one, float(two)) for one, two in self._list(name, most, _is_pair, "pairs of an id and a number"))

    def inner(self, name: str) -> Fields:
        value = self._get(name)
        if not isinstance(value, dict):
            raise self._wrong(name, "must be an object")
        return Fields(value, f"{self.where}: {name}")

    def plain(self, name: str) -> Mapping[str, Any]:
        """An object of any JSON of a few levels, to be compared only."""
        value = self.inner(name)._value
        if not _is_plain(value, _MAX_DEPTH):
            raise self._wrong(name, f"must have at most {_MAX_DEPTH} levels, and numbers to {_MAX_NUMBER:g}")
        return value

    def items(self, name: str, *, most: int) -> Iterator[Fields]:
        for number, value in enumerate(self._list(name, most, lambda v: isinstance(v, dict), "objects")):
            yield Fields(value, f"{self.where}: {name} {number}")

    def named(self, name: str, *, most: int) -> Iterator[tuple[str, Fields]]:
        inner = self.inner(name)
        if len(inner._value) > most:
            raise self._wrong(name, f"must have at most {most} entries")
        for key in inner:
            yield key, inner.inner(key)

    def _list(self, name: str, most: int, fits: Any, what: str) -> list[Any]:
        value = self._get(name)
        if not isinstance(value, list) or len(value) > most or not all(map(fits, value)):
            raise self._wrong(name, f"must be a list of at most {most} {what}")
        return value

    def _get(self, name: str) -> Any:
        self._read.add(name)
        if name not in self._value:
            raise FormatError(f"{self.where}: the field {name!r} is missing")
        return self._value[name]

    def _wrong(self, name: str, what: str) -> FormatError:
        return FormatError(f"{self.where}: {name[:80]!r} {what}")


def _is_whole(value: object) -> bool:
    return type(value) is int and 0 <= value <= _MAX_WHOLE


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -_MAX_NUMBER <= value <= _MAX_NUMBER


def _is_plain(value: object, levels: int) -> bool:
    if isinstance(value, dict | list):
        inner = value.values() if isinstance(value, dict) else value
        return levels > 0 and all(_is_plain(one, levels - 1) for one in inner)
    return value is None or isinstance(value, bool | str) or _is_number(value)


def _is_pair(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and _is_whole(value[0]) and _is_number(value[1])
