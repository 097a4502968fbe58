"""Seeded mutations of sound files, and the rule every reader must keep: only `HerdError` escapes."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable, Iterator
from random import Random

from openherd.errors import HerdError
from tests.bounds import within_cpu, within_memory

# Numbers at which size arithmetic goes wrong.
EDGES = (0, 1, 2, 7, 8, 31, 32, 33, 127, 255, 256, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**53, 2**61, 2**62,
         2**63 - 1, 2**63, 2**63 + 1, 2**64 - 32, 2**64 - 1)  # fmt: skip


def seconds(default: float) -> float:
    """How long to fuzz: OPENHERD_FUZZ_SECONDS, for longer runs than the suite's."""
    return float(os.environ.get("OPENHERD_FUZZ_SECONDS", default))


def mutated(sound: bytes, random: Random) -> bytes:
    """One to four changes: bytes flipped, numbers set to an edge, pieces cut, doubled, swapped or the end dropped."""
    data = bytearray(sound)
    for _ in range(random.randint(1, 4)):
        at = random.randrange(len(data) + 1)
        length = min(random.choice((1, 2, 4, 8, 16, 64, 500)), len(data) - at)
        match random.randrange(7):
            case 0:
                data[at : at + length] = random.randbytes(length)
            case 1:
                data[at : at + 8] = struct.pack("<Q", random.choice(EDGES))
            case 2:
                data[at : at + 4] = struct.pack("<I", random.choice(EDGES) & 0xFFFFFFFF)
            case 3:
                del data[at : at + length]
            case 4:
                data[at:at] = data[at : at + length]
            case 5:
                other = random.randrange(len(data) + 1)
                data[at : at + length] = data[other : other + length]
            case _:
                del data[at:]
        if not data:
            break
    return bytes(data)


def seeds(budget: float, at_least: int) -> Iterator[int]:
    """0, 1, 2, ... for `budget` seconds, and at least `at_least` of them on a slow machine."""
    end = time.monotonic() + budget
    seed = 0
    while seed < at_least or time.monotonic() < end:
        yield seed
        seed += 1


def only_herd_errors(read: Callable[[], object], size: int, case: object = "") -> bool:
    """Whether `read` succeeds. Any exception but HerdError escapes, as does a breach of time and memory's bounds.

    `case`, such as the seed, is noted on what escapes.
    """

    def succeeds() -> bool:
        try:
            read()
        except HerdError:
            return False
        return True

    try:
        return within_memory(2 * size + (64 << 20), lambda: within_cpu(1, succeeds))
    except BaseException as error:
        error.add_note(f"case {case}")
        raise
