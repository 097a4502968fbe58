"""Rewards for answers that can be checked: 1 if the answer is right, else 0.

A prompt's row carries what is expected (see `prompts.py`); each reward reads it once, refusing what it cannot use, and
gives a `Check` of answers. A check is total: whatever a model writes gets a number, in time linear in its length.

    exact        the same text
    number       the last number in the answer equals the expected one; of a GSM8K solution, the one behind ####
                 (Cobbe et al. 2021, "Training Verifiers to Solve Math Word Problems")
    regex        the whole answer matches a regular expression of Rust's syntax (no look-around, no back-references)
    json_schema  the answer is JSON that is valid under a schema, with keys in the schema's order, as constrained
                 answers have them (see `openherd.constrain`)

White space at both ends of an answer does not count.
Not covered: rewards between 0 and 1, sums of rewards, rewards that run a program or another model.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import lru_cache
from typing import TypeAlias

from openherd.constrain import Constraint, Grammar, compile_grammar
from openherd.errors import EngineError, InputError

Check: TypeAlias = Callable[[str], float]
"""The reward of an answer's text."""

MAX_ANSWER_BYTES = 1 << 16
"""A longer answer is wrong: it is not looked at."""

_NUMBER = re.compile(r"(?:(?<![0-9])-)?[0-9][0-9,]*(?:\.[0-9]+)?")  # in 7-5 the minus is not the five's
_MAX_DIGITS = 64


def exact(expected: object) -> Check:
    wanted = _text(expected).strip()
    return lambda answer: float(_fits(answer) and answer.strip() == wanted)


def number(expected: object) -> Check:
    """`expected`: a number, or text whose last number counts, the one behind the last #### if there is one."""
    is_number = isinstance(expected, int | float) and not isinstance(expected, bool)
    text = f"{Decimal(str(expected)):f}" if is_number else _text(expected)  # 1e-07 is 0.0000001: digits alone are read
    wanted = _last_number(text.rpartition("####")[2])
    if wanted is None:
        raise InputError(f"the expected answer holds no number: {text[:60]!r}")
    return lambda answer: float(_fits(answer) and _last_number(answer) == wanted)


def regex(expected: object) -> Check:
    return _grammar_check(Grammar.regex(_text(expected)))


def json_schema(expected: object) -> Check:
    if not isinstance(expected, Mapping):
        raise InputError(f"the expected answer must be a JSON schema, an object, not {type(expected).__name__}")
    return _grammar_check(Grammar.json_schema(expected))


REWARDS: dict[str, Callable[[object], Check]] = {
    "exact": exact,
    "number": number,
    "regex": regex,
    "json_schema": json_schema,
}


def _grammar_check(grammar: Grammar) -> Check:
    """Compiles at once, so that a malformed grammar is refused where it is read, and again if others came between."""
    _start(grammar)
    return lambda answer: float(_fits(answer) and _derives(grammar, answer.strip()))


def _derives(grammar: Grammar, text: str) -> bool:
    state = _start(grammar).fork()
    try:
        state.accept(text.encode("utf-8", "replace"))
    except EngineError:  # no such text, or one on which the grammar is too ambiguous to go on within its bounds
        return False
    return state.is_accepting


class _Bytes:
    """A vocabulary of single bytes: a grammar bound to it reads any text."""

    vocab_size = 257
    stop_ids = frozenset({256})

    def encode(self, text: str, *, special: bool = False, add_bos: bool | None = None) -> list[int]:
        return list(text.encode("utf-8", "replace"))

    def token_bytes(self, token_id: int, /) -> bytes:
        return bytes((token_id,)) if token_id < 256 else b"<end>"

    def is_control(self, token_id: int, /) -> bool:
        return token_id == 256


_BYTES = _Bytes()


@lru_cache(maxsize=64)  # an automaton may take megabytes, and a file of prompts have thousands of them
def _start(grammar: Grammar) -> Constraint:
    """Raises `SchemaError` for what cannot be compiled within the bounds of `openherd.constrain`."""
    return compile_grammar(grammar, _BYTES, _BYTES.vocab_size)


def _last_number(text: str) -> Decimal | None:
    """Thousands may be parted by commas. None where there is no number, or one of more digits than any answer has."""
    last = deque(_NUMBER.finditer(text), maxlen=1)
    digits = last[0][0].replace(",", "") if last else ""
    return Decimal(digits) if 0 < len(digits) <= _MAX_DIGITS else None


def _fits(answer: str) -> bool:
    return len(answer) <= MAX_ANSWER_BYTES and len(answer.encode("utf-8", "replace")) <= MAX_ANSWER_BYTES


def _text(expected: object) -> str:
    if not isinstance(expected, str):
        raise InputError(f"the expected answer must be text, not {type(expected).__name__}")
    if not _fits(expected):
        raise InputError(f"the expected answer is longer than {MAX_ANSWER_BYTES} bytes")
    return expected
