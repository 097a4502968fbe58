"""Stop strings against the plain definition: cut before the stop string that begins first."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openherd.llm.stop_strings import StopStrings

LETTERS = "ab\u00e9\U0001f600"


def cut(text: str, stops: list[str]) -> str:
    """The definition."""
    return text[: min((text.find(stop) for stop in stops if stop in text), default=len(text))]


def longest_live_prefix(text: str, stops: list[str]) -> int:
    return max(n for n in range(len(text) + 1) if n == 0 or any(s.startswith(text[-n:]) for s in stops))


def split(text: str, rng: random.Random) -> list[str]:
    ends = sorted(rng.randrange(len(text) + 1) for _ in range(rng.randrange(1, 12)))
    return [text[a:b] for a, b in zip([0, *ends], [*ends, len(text)], strict=True)]


def test_a_thousand_random_splits() -> None:
    """Overlapping stop strings over few letters, so that most texts have near misses and many have a match."""
    rng = random.Random(1)
    num_cut = num_held = 0
    for _ in range(1000):
        stops = ["".join(rng.choices(LETTERS, k=rng.randrange(1, 6))) for _ in range(rng.randrange(1, 5))]
        text = "".join(rng.choices(LETTERS + "c", k=rng.randrange(60)))
        scanner, out, read = StopStrings(stops).scanner(), "", ""
        for piece in split(text, rng):
            out += scanner.add(piece)
            read += piece
            if scanner.match is not None:
                break
            assert out + scanner.held == read
            # Nothing beyond a live prefix is held back; a stop string inside it waits with it.
            assert len(scanner.held) == longest_live_prefix(read, stops) or any(s in scanner.held for s in stops)
            num_held += bool(scanner.held)
        out += scanner.flush()
        assert out == cut(text, stops)
        assert (scanner.match is not None) == (out != text)
        num_cut += out != text
    assert num_cut > 300
    assert num_held > 300


@given(st.text(alphabet="abc"), st.lists(st.text(alphabet="abc", min_size=1), min_size=1, max_size=5))
def test_character_by_character_equals_all_at_once(text: str, stops: list[str]) -> None:
    automaton = StopStrings(stops)
    whole, single = automaton.scanner(), automaton.scanner()
    at_once = whole.add(text) + whole.flush()
    by_character = "".join(map(single.add, text)) + single.flush()
    assert at_once == by_character == cut(text, stops)
    assert whole.match == single.match


@pytest.mark.parametrize(
    ("text", "stops", "expected", "match"),
    [
        ("hello world", ["wor"], "hello ", "wor"),
        ("abcdef!", ["abcdef", "cd"], "", "abcdef"),  # begins first, though "cd" is complete first
        ("abcdX!", ["abcdef", "cd"], "ab", "cd"),  # the longer one came to nothing
        ("abcd", ["abcdef", "cd"], "ab", "cd"),  # nor does it at the end of the answer
        ("abab", ["abc"], "abab", None),
        ("aaab", ["aab"], "a", "aab"),
        ("", ["x"], "", None),
        ("x", ["x"], "", "x"),
    ],
)
def test_cases(text: str, stops: list[str], expected: str, match: str | None) -> None:
    scanner = StopStrings(stops).scanner()
    assert "".join(map(scanner.add, text)) + scanner.flush() == expected
    assert scanner.match == match


def test_held_text_is_released_as_soon_as_it_is_certain() -> None:
    scanner = StopStrings(["STOP"]).scanner()
    assert [scanner.add(piece) for piece in ("a ST", "O", "RY S")] == ["a ", "", "STORY "]
    assert scanner.held == "S"
    assert scanner.flush() == "S"


def test_nothing_comes_after_a_match() -> None:
    scanner = StopStrings(["."]).scanner()
    assert scanner.add("one. two") == "one"
    assert scanner.add(" three.") == ""
    assert scanner.flush() == ""


def test_no_stop_strings_hold_nothing() -> None:
    scanner = StopStrings([]).scanner()
    assert scanner.add("all of it") == "all of it"


def test_empty_stop_string_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one character"):
        StopStrings(["a", ""])
