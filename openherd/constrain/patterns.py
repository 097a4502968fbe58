"""How large a regular expression is once the repetitions it demands are written out: its automaton's least size."""

from __future__ import annotations

import re

from openherd.errors import SchemaError

# The engine gives an expression up while an answer is being drawn, near 30,000 written-out characters.
MAX_PATTERN_SIZE = 20_000

_TOKEN = re.compile(
    r"""
      (?P<escape>  \\[pPxuU]\{[^}]*\} | \\.? )
    | (?P<set>     \[\^?\]?(?:\\.|[^\]\\])*\]? )
    | (?P<open>    \((?:\?(?:[-a-zA-Z]*:|P?<\w*>))? )
    | (?P<close>   \) )
    | (?P<count>   \{\s*(?P<least>\d+)\s*(?:,\s*\d*\s*)?\} )
    | (?P<other>   [*+?|] )
    | (?P<literal> . )
    """,
    re.VERBOSE | re.DOTALL,
)


def check_pattern(pattern: str, what: str) -> None:
    """Raise `SchemaError` naming `what` when the pattern is larger than `MAX_PATTERN_SIZE`."""
    if pattern_size(pattern) > MAX_PATTERN_SIZE:
        raise SchemaError(
            f"{what} repeats into more than {MAX_PATTERN_SIZE} characters: use smaller counts, or + and *"
        )


def pattern_size(pattern: str) -> int:
    """Characters, classes and escapes of the pattern, those under `{m,n}` taken m times, at least once.

    What may be repeated beyond that is not counted: the engine builds it as an answer reaches it, and most never do.
    Malformed patterns are left to the regex compiler.
    """
    groups = [0]
    last = 0  # size of what a count would repeat
    for token in _TOKEN.finditer(pattern):
        match token.lastgroup:
            case "open":
                groups.append(0)
            case "close":
                last = groups.pop() if len(groups) > 1 else 0
                groups[-1] += last
            case "count":
                times = max(_number(token["least"]), 1)
                groups[-1] += last * (times - 1)
                last *= times
            case "other":
                pass
            case _:
                last = 1
                groups[-1] += 1
        if groups[-1] > MAX_PATTERN_SIZE:
            break
    return sum(groups)


def _number(digits: str) -> int:
    return int(digits) if len(digits) < 10 else MAX_PATTERN_SIZE + 1
