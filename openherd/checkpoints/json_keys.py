"""Typed access to the keys of a JSON settings file (config.json, params.json, ...).

A key that is null is not `in` the keys, and getters give their default for it; `is_null` tells it from one left out.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from openherd.checkpoints.gguf_keys import Keys
from openherd.checkpoints.mapped_file import map_file
from openherd.checkpoints.strict_json import MAX_BYTES, read_json_object
from openherd.errors import FormatError

# Indexes of many experts (2 MB) and tokenizer_config.json with thousands of added tokens (Gemma 3's has 1.2 MB).
LARGE = 4 << 20


class JsonKeys(Keys):
    """The keys of one JSON object. Getters raise FormatError that names the file and the key."""

    def __init__(self, path: Path, values: Mapping[str, Any], within: str = "") -> None:
        super().__init__(path, {within + key: value for key, value in values.items() if value is not None})
        self._nulls = frozenset(within + key for key, value in values.items() if value is None)

    def is_null(self, key: str) -> bool:
        """Whether the file has null under `key`, which may mean another thing than leaving it out."""
        return key in self._nulls

    def refuse_null(self, *names: str) -> None:
        """Raise FormatError for the first of the keys that is null, where null has no meaning."""
        for key in names:
            if key in self._nulls:
                raise FormatError(f"{self.path}: {key} must not be null")

    def section(self, key: str) -> JsonKeys:
        """The object under `key`, empty when it is absent; its keys are spelled `key.inner`."""
        value: Any = self._values.get(key, {})
        if not isinstance(value, dict):
            raise self.wrong(key, "must be an object")
        return JsonKeys(self.path, value, f"{key}.")

    def wholes(self, key: str, *, most: int = 2**31 - 1) -> tuple[int, ...]:
        """A whole number or a list of them (`eos_token_id`); empty when absent."""
        value: Any = self._values.get(key, ())
        values = list(value) if isinstance(value, list | tuple) else [value]
        if len(values) > 1024 or any(type(item) is not int or not 0 <= item <= most for item in values):
            raise self.wrong(key, f"must be a whole number from 0 to {most}, or a list of such")
        return tuple(values)

    def listed(self, key: str) -> list[Any]:
        """The items of a list, or the values of an object; empty when absent."""
        value: Any = self._values.get(key, [])
        if isinstance(value, dict):
            return list(value.values())
        if not isinstance(value, list):
            raise self.wrong(key, "must be a list")
        return value

    def positives(self, key: str) -> tuple[float, ...]:
        """A list of finite numbers greater than 0. Raises FormatError also when it is absent."""
        value: Any = self._values.get(key, ())
        if not isinstance(value, list) or not 0 < len(value) <= 65536 or not all(map(_is_positive, value)):
            raise self.wrong(key, "must be a list of numbers greater than 0")
        return tuple(map(float, value))

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings; empty when absent."""
        value: Any = self._values.get(key, ())
        if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
            raise self.wrong(key, "must be a list of strings")
        return tuple(value)


def read_json_keys(path: Path, *, limit: int = MAX_BYTES) -> JsonKeys:
    """The object in the file. Raises FormatError or ModelNotFoundError."""
    return JsonKeys(path, read_json_object(map_file(path), str(path), limit=limit))


def read_json_keys_if_there(path: Path, *, limit: int = MAX_BYTES) -> JsonKeys:
    """The object in the file, empty where there is no file. Raises FormatError."""
    return read_json_keys(path, limit=limit) if os.path.lexists(path) else JsonKeys(path, {})


def _is_positive(value: Any) -> bool:
    """Whether `value` is a number that float32 has, and greater than 0."""
    return type(value) in (int, float) and 0 < value < 3e38
