"""Token ids of thousands of strings in a few kilobytes: a digest of each hundred strings, and a byte of each string.

The digests decide; the bytes say which strings differ (all but one in 256 of them).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

GROUP = 100


def digest(plain: Iterable[int], special: Iterable[int]) -> int:
    """64 bits of BLAKE2b over both lists as little-endian int32, with -1 between them."""
    return _blake([*plain, -1, *special], "<i4")


def condensed(digests: Sequence[int]) -> dict[str, NDArray[Any]]:
    """What is recorded of the digests of all strings."""
    groups = [_blake(digests[i : i + GROUP], "<u8") for i in range(0, len(digests), GROUP)]
    return {
        "groups": np.array(groups, np.uint64),
        "bytes": np.array([value & 0xFF for value in digests], np.uint8),
    }


def different(digests: Sequence[int], recorded: Mapping[str, NDArray[Any]]) -> list[int]:
    """The strings whose ids are not the recorded ones; a whole group where no byte tells which."""
    ours = condensed(digests)
    if len(ours["bytes"]) != len(recorded["bytes"]):
        raise ValueError(f"ids of {len(recorded['bytes'])} strings are recorded, and there are {len(digests)}")
    wrong: list[int] = []
    for group in np.flatnonzero(ours["groups"] != recorded["groups"]):
        here = slice(group * GROUP, (group + 1) * GROUP)
        found = np.flatnonzero(ours["bytes"][here] != recorded["bytes"][here])
        wrong += [int(group) * GROUP + int(i) for i in (found if len(found) else range(len(digests[here])))]
    return wrong


def _blake(values: Sequence[int], dtype: str) -> int:
    data = np.asarray(values, dtype=dtype).tobytes()
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")
