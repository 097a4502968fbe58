"""JSON of files: what the standard library would let through."""

from __future__ import annotations

import pytest

from openherd.checkpoints.strict_json import read_json_object
from openherd.errors import FormatError


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b'{"a": 1, "a": 2}', "stands twice"),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b'{"a": 1e400}', "1e400 is beyond every float"),
        (b'{"a": -1e999}', "beyond every float"),
        (b'{"a": "\\ud800"}', "surrogates not allowed"),
        (b'{"\\uDFFF": 1}', "surrogates not allowed"),
        (b"[]", "must be a JSON object"),
        (b"\xff", "not usable JSON"),
        (b"{" * 100_000, "not usable JSON"),
    ],
)
def test_refused(raw: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        read_json_object(raw, "x.json")


def test_a_pair_of_surrogates_is_a_character() -> None:
    assert read_json_object(b'{"a": "\\ud83d\\ude00", "b": 1e300}', "x.json") == {"a": "\N{GRINNING FACE}", "b": 1e300}
