"""JSON from files that are not trusted."""

from __future__ import annotations

import json
import math
import mmap
import re
from collections import Counter
from typing import Any, NoReturn

from openherd.errors import FormatError

# Python objects take up to 25 times the bytes of the JSON they come from (`[[],[],`): 32 MiB in all.
MAX_BYTES = 1 << 20
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def read_json_object(
    raw: bytes | mmap.mmap, where: str, *, limit: int = MAX_BYTES, most_items: int | None = None
) -> dict[str, Any]:
    """The JSON object `raw` spells. Raises FormatError beginning with `where`.

    Stricter than the standard library: a key that stands twice, NaN, infinity and numbers that become it, halves of
    characters (lone surrogates), and more than `limit` bytes are refused; so is more than `most_items` commas and
    openings of lists and objects, counted before anything is built.
    """
    if len(raw) > limit:
        raise FormatError(f"{where}: {len(raw)} bytes of JSON are more than the limit of {limit}")
    data = raw[:]
    if most_items is not None and (items := sum(map(data.count, (b",", b"[", b"{")))) > most_items:
        raise FormatError(f"{where}: about {items} items of JSON are more than the limit of {most_items}")
    try:
        text = data.decode()
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite)
        if _SURROGATE.search(text):  # perhaps one half of a pair; encoding finds the other half missing
            json.dumps(value, ensure_ascii=False).encode()
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


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits[:40]} is beyond every float")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
