"""One number for the ids of a string, control tokens as text and as control tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np


def digest(plain: Iterable[int], special: Iterable[int]) -> int:
    """64 bits of BLAKE2b over both lists as little-endian int32, with -1 between them."""
    data = np.asarray([*plain, -1, *special], dtype="<i4").tobytes()
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")
