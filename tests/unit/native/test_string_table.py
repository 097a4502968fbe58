"""walk_strings and decode_strings: a file's string arrays, whatever the lengths in it say."""

from __future__ import annotations

import random
import struct

import numpy as np
import pytest
from numpy.typing import NDArray

from openherd import _native

TEXTS = ["", "a", "ü", "日本", "\0", "x" * 300]
MOST = 2**64 - 1


def laid(*texts: bytes) -> bytes:
    return b"".join(struct.pack("<Q", len(text)) + text for text in texts)


def data_of(raw: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(raw, np.uint8)


def test_strings_are_found_and_decoded_in_order() -> None:
    raw = b"abc" + laid(*(text.encode() for text in TEXTS)) + b"tail"
    starts, whole, end = _native.walk_strings(data_of(raw), 3, len(TEXTS))
    assert (whole, end) == (len(TEXTS), len(raw) - 4)
    assert _native.decode_strings(data_of(raw), starts) == TEXTS
    assert _native.decode_strings(data_of(raw), starts[::2].copy()) == TEXTS[::2]


@pytest.mark.parametrize("length", [6, 7, 1 << 31, 1 << 63, MOST - 8, MOST])
def test_a_length_that_leads_outside_ends_the_walk(length: int) -> None:
    raw = laid(b"one") + struct.pack("<Q", length) + b"five!"
    starts, whole, end = _native.walk_strings(data_of(raw), 0, 3)
    assert (starts.tolist(), whole, end) == ([0, 0, 0], 1, 11)
    with pytest.raises(IndexError, match="not in the data"):
        _native.decode_strings(data_of(raw), np.array([0, 11], np.uint64))


@pytest.mark.parametrize("start", [1, 7, 8, 9, 1 << 40, MOST - 7, MOST])
def test_a_start_without_room_for_a_length_is_no_string(start: int) -> None:
    data = data_of(struct.pack("<Q", 0))
    assert _native.walk_strings(data, start, 1)[1:] == (0, start)
    with pytest.raises(IndexError, match="not in the data"):
        _native.decode_strings(data, np.array([start], np.uint64))


@pytest.mark.parametrize("count", [2, 1 << 40, MOST])
def test_more_strings_than_lengths_fit_are_refused_before_memory_is_taken(count: int) -> None:
    with pytest.raises(ValueError, match="more strings than"):
        _native.walk_strings(data_of(bytes(15)), 0, count)


def test_other_arrays_are_refused() -> None:
    with pytest.raises(TypeError):
        _native.walk_strings(np.zeros(16, np.int8), 0, 1)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        _native.decode_strings(data_of(bytes(16)), np.zeros(1, np.int64))  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [b"\xff", b"a\xc3", b"\xed\xa0\x80", b"\xf5\x80\x80\x80"])
def test_what_is_not_utf8_is_an_error(bad: bytes) -> None:
    with pytest.raises(UnicodeDecodeError):
        _native.decode_strings(data_of(laid(b"good", bad)), np.array([0, 12], np.uint64))


def test_random_bytes_are_walked_as_python_walks_them() -> None:
    chance = random.Random(1)
    for _ in range(2000):
        raw = bytes(chance.choice((0, 0, 0, 1, 9, 255)) if n % 8 else chance.randrange(24) for n in range(120))
        at, expected = 0, []
        while at + 8 <= len(raw) and at + 8 + (length := int.from_bytes(raw[at : at + 8], "little")) <= len(raw):
            expected.append(at)
            at += 8 + length
        starts, whole, end = _native.walk_strings(data_of(raw), 0, 15)
        assert (starts[:whole].tolist(), end) == (expected[:15], at if len(expected) <= 15 else expected[15])
