"""Typed access to the keys of a GGUF file."""

from __future__ import annotations

import math
from collections.abc import ItemsView, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openherd.checkpoints.gguf_cursor import Value
from openherd.checkpoints.string_array import StringArray
from openherd.errors import FormatError


class Keys:
    """The keys of one file, by type.

    Each getter raises FormatError when the key has another type, and when it is missing and no default is given.
    """

    def __init__(self, path: Path, values: Mapping[str, Value]) -> None:
        self.path = path
        self._values = values

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __getitem__(self, key: str) -> Value:
        return self._values[key]

    def items(self) -> ItemsView[str, Value]:
        return self._values.items()

    def without(self, key: str) -> Keys:
        """The keys but one, which its reader has read in another sense than the common one."""
        return Keys(self.path, {other: value for other, value in self._values.items() if other != key})

    def text(self, key: str, default: str | None = None) -> str:
        value = self._get(key, default)
        if not isinstance(value, str):
            raise self.wrong(key, "must be a string")
        return value

    def truth(self, key: str, default: bool | None = None) -> bool:
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise self.wrong(key, "must be a truth value")
        return value

    def whole(self, key: str, default: int | None = None, *, least: int = 0, most: int = 2**31 - 1) -> int:
        """A whole number from `least` to `most`."""
        value = self._get(key, default)
        if type(value) is not int or not least <= value <= most:
            raise self.wrong(key, f"must be a whole number from {least} to {most}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A finite number, whole or not."""
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self.wrong(key, "must be a finite number")
        return float(value)

    def positive(self, key: str, default: float | None = None) -> float:
        """A finite number greater than 0."""
        value = self.number(key, default)
        if value <= 0:
            raise self.wrong(key, "must be greater than 0")
        return value

    def same_whole(self, key: str, default: int | None = None) -> int:
        """A size that a file may give for each layer, where openherd needs it to be the same for all."""
        value = self._values.get(key)
        if not isinstance(value, np.ndarray):
            return self.whole(key, default, least=1)
        if value.dtype.kind not in "iu" or value.size == 0 or (value != value[0]).any() or value[0] < 1:
            raise self.wrong(key, "must be one whole number, the same for every layer")
        return int(value[0])

    def strings(self, key: str) -> StringArray:
        value = self._get(key, None)
        if not isinstance(value, StringArray):
            raise self.wrong(key, "must be an array of strings")
        return value

    def numbers(self, key: str, kind: str, length: int) -> NDArray[Any]:
        """An array of `length` numbers whose NumPy kinds are among `kind`: a view of the file."""
        value = self._get(key, None)
        if not isinstance(value, np.ndarray) or value.dtype.kind not in kind or len(value) != length:
            raise self.wrong(key, f"must be an array of {length} {'numbers' if 'f' in kind else 'whole numbers'}")
        return value

    def wrong(self, key: str, what: str) -> FormatError:
        """The error for a key whose value cannot be used."""
        return FormatError(f"{self.path}: {key} {what}, not {self.shown(key)}")

    def shown(self, key: str) -> str:
        """The value of `key` as a message shows it."""
        value = self._values.get(key)
        if isinstance(value, np.ndarray | StringArray):
            return "an array"
        if isinstance(value, str) and len(value) > 80:
            value = value[:77] + "..."
        return repr(value)

    def _get(self, key: str, default: Value | None) -> Value:
        value = self._values.get(key, default)
        if value is None:
            raise FormatError(f"{self.path}: the key {key} is missing")
        return value
