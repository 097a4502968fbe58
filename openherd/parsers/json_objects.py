"""Where a JSON object ends, found as it streams, and what call it is."""

from __future__ import annotations

import json
import re
from collections.abc import Set
from typing import Any, NamedTuple

_STRUCTURE = re.compile(r'["{}\[\]]')
_STRING_END = re.compile(r'["\\]')


class ObjectScanner:
    """Follows brackets and strings of one JSON value that begins with a bracket. It does not check the rest."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._escaped = False  # the next character is part of an escape

    def end(self, text: str, start: int = 0) -> int | None:
        """Read on from `start`: the position after the value's last character, None if it is not in `text`."""
        position = start
        while position < len(text):
            if self._escaped:
                self._escaped = False
                position += 1
                continue
            found = (_STRING_END if self._in_string else _STRUCTURE).search(text, position)
            if found is None:
                return None
            position = found.end()
            char = found[0]
            if char == "\\":
                self._escaped = True
            elif char == '"':
                self._in_string = not self._in_string
            else:
                self._depth += 1 if char in "{[" else -1
                if self._depth <= 0:
                    return position
        return None


class ParsedCall(NamedTuple):
    name: str
    arguments: str  # JSON text of an object


def parse_call(text: str, names: Set[str]) -> ParsedCall | None:
    """The call that a JSON object is; None for anything else, and for functions that are not offered.

    Models stray from their formats: `parameters` and `arguments` count alike, no arguments are an empty object, and
    arguments may be JSON inside a string.
    """
    call = _loads(text)
    if not isinstance(call, dict):
        return None
    name = call.get("name", call.get("function"))
    arguments = call.get("arguments", call.get("parameters", {}))
    if isinstance(arguments, str):
        arguments = _loads(arguments)
    if not isinstance(name, str) or name not in names or not isinstance(arguments, dict):
        return None
    written = _dumps(arguments)
    return None if written is None else ParsedCall(name, written)


def _loads(text: str) -> Any:
    """None for what is not JSON, or too deep or too large a number for Python."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None


def _dumps(value: dict[str, Any]) -> str | None:
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (ValueError, RecursionError):  # 1e999 is JSON, and infinity for Python
        return None
    return text if _is_unicode(text) else json.dumps(value)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, written as an escape
        return False
    return True


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
