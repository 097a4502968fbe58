"""How much work a JSON text is, seen before it is parsed: the front does it between the answers to everybody else."""

from __future__ import annotations

from openherd.serve.front.errors import ApiError

# Commas, colons and brackets outside of strings. Validation takes about a microsecond for each: 41 ms for the worst
# body of so many that was found, and the front may be busy for 50. Token ids fit: a prompt has fewer.
MAX_JSON_MARKS = 50_000
# Python reads and writes a whole number in time that grows with the square of its digits: 2 MiB of numbers of 4,000
# take 0.3 s. The largest double has 309.
MAX_DIGITS = 512
_TO_ZERO = bytes.maketrans(b"123456789", b"0" * 9)
_TOO_LONG = b"0" * (MAX_DIGITS + 1)


class JsonSize:
    """Of one request: its body or, counted together, the strings in it that are JSON again."""

    def __init__(self) -> None:
        self._num_marks = 0

    def take(self, text: bytes) -> None:
        """Raises `ApiError` 413 for too many values, and 400 for a number of too many digits."""
        self._num_marks += _num_marks(text)
        if self._num_marks > MAX_JSON_MARKS:
            raise ApiError(413, f"the body has more than {MAX_JSON_MARKS} JSON values", code="request_too_large")
        if _has_long_number(text):
            raise ApiError(400, f"the body has a number of more than {MAX_DIGITS} digits", code="invalid_value")


def _num_marks(text: bytes) -> int:
    """At least as many as there are outside of strings, and exactly so many where that matters."""
    if (num_anywhere := _count(text)) <= MAX_JSON_MARKS:
        return num_anywhere
    plain = _without_escapes(text)
    if (num_quotes := plain.count(b'"')) > 2 * MAX_JSON_MARKS:
        return num_quotes
    return _count(_outside_strings(plain))


def _has_long_number(text: bytes) -> bool:
    if _TOO_LONG not in text.translate(_TO_ZERO):
        return False
    plain = _without_escapes(text)
    if plain.count(b'"') > 4 * MAX_JSON_MARKS:  # so many strings with so few marks between are no JSON
        return False
    return _TOO_LONG in _outside_strings(plain).translate(_TO_ZERO)


def _without_escapes(text: bytes) -> bytes:
    return text.replace(rb"\\", b"").replace(rb"\"", b"")


def _outside_strings(plain: bytes) -> bytes:
    """Of a text without escaped quotes, with a quote in each string's place."""
    return b'"'.join(plain.split(b'"')[::2])


def _count(data: bytes) -> int:
    return sum(data.count(mark) for mark in (b",", b":", b"[", b"{"))
