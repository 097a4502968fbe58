"""JSON from files that are not trusted."""

from __future__ import annotations

import json
import mmap
from collections import Counter
from typing import Any, NoReturn

from openherd.errors import FormatError

# Python objects take up to 25 times the bytes of the JSON they come from (`[[],[],`): 32 MiB in all.
MAX_BYTES = 1 << 20


def read_json_object(raw: bytes | mmap.mmap, where: str) -> dict[str, Any]:
    """The JSON object `raw` spells. Raises FormatError beginning with `where`.

    Stricter than the standard library: a key that stands twice, NaN and infinity, and more than 1 MiB are refused.
    """
    if len(raw) > MAX_BYTES:
        raise FormatError(f"{where}: {len(raw)} bytes of JSON are more than the limit of {MAX_BYTES}")
    try:
        value = json.loads(raw[:].decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:  # ValueError: bad JSON, bad UTF-8, or an endless number
        raise FormatError(f"{where}: not usable JSON: {str(error)[:200]}") from None
    if not isinstance(value, dict):
        raise FormatError(f"{where}: must be a JSON object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {twice[:80]!r} stands twice")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
