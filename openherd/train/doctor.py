"""The data doctor: what is wrong with rows that can be read - duplicates, empty answers, personal data, leaked tests.

It counts and points; nothing is removed. Personal data is found by form alone (addresses of mail, telephone and card
numbers, numbers of bank accounts): names are not, and a number that only looks like one is reported too.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from openherd.messages import Message
from openherd.train.rows import Completion, Preference, Row, Text
from openherd.train.sources import LocatedRow, find_files, read_values

SHINGLE = 13
"""Words in a row that count as overlap with an evaluation set: the customary length (Brown et al. 2020, appendix C)."""
EXAMPLES = 5
"""Places that are named for each finding."""

_WORDS = re.compile(r"\w+")
_MAIL = re.compile(r"\b[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,4}\b")
_PHONE = re.compile(r"(?<![\w.])\+\d{1,3}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d{2,4}(?:[ .-]?\d{2,4}){2,4}(?![\w.])")
_CARD = re.compile(r"(?<![\w.-])\d(?:[ -]?\d){12,18}(?![\w-])")
_ACCOUNT = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,3})?\b")


@dataclass(slots=True)
class Findings:
    """How often each trouble was found, and where first."""

    counts: Counter[str] = field(default_factory=Counter)
    places: dict[str, list[str]] = field(default_factory=dict)

    def add(self, trouble: str, where: str) -> None:
        self.counts[trouble] += 1
        places = self.places.setdefault(trouble, [])
        if len(places) < EXAMPLES:
            places.append(where)


class Doctor:
    """Looks at rows one by one; memory grows with the rows and the evaluation sets, not with the text.

    Each row's and each shingle's hash is kept in a set: 70 to 90 bytes, as CPython 3.11 was measured to take.
    """

    def __init__(self, evaluation: Sequence[Path] = ()) -> None:
        """`evaluation`: files whose text must not be trained on. Raises InputError for an unreadable one."""
        self._seen: set[int] = set()
        self._findings = Findings()
        self._evaluation = {shingle for text in _texts_of(evaluation) for shingle in _shingles(text)}

    def look(self, located: LocatedRow) -> None:
        text, where = "\n".join(_parts(located.row)), located.where
        digest = _hash(" ".join(text.casefold().split()))
        if digest in self._seen:
            self._findings.add("duplicate", where)
        self._seen.add(digest)
        if any(not answer.strip() for answer in _answers(located.row)):
            self._findings.add("empty answer", where)
        for trouble in personal_data(text):
            self._findings.add(trouble, where)
        if self._evaluation and not self._evaluation.isdisjoint(_shingles(text)):
            self._findings.add("overlap with an evaluation set", where)

    def findings(self) -> Findings:
        return self._findings


def personal_data(text: str) -> list[str]:
    """The kinds of personal data that the text seems to hold."""
    found = []
    if _MAIL.search(text):
        found.append("mail address")
    if _PHONE.search(text):
        found.append("telephone number")
    if any(_is_card(match.group()) for match in _CARD.finditer(text)):
        found.append("card number")
    if any(_is_account(match.group()) for match in _ACCOUNT.finditer(text)):
        found.append("bank account")
    return found


def _is_card(text: str) -> bool:
    """Luhn's check digit: every second digit from the right doubled."""
    digits = [int(c) for c in text if c.isdigit()]
    if len(set(digits)) < 2:
        return False  # 0000 0000 0000 0000 passes the check and is nobody's
    doubled = [digit * 2 - 9 * (digit > 4) for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _is_account(text: str) -> bool:
    """ISO 13616 (IBAN): country and check digits moved to the end, letters as numbers from 10, modulo 97 gives 1."""
    plain = text.replace(" ", "")
    return int("".join(str(int(c, 36)) for c in plain[4:] + plain[:4])) % 97 == 1


def _parts(row: Row) -> Iterator[str]:
    if isinstance(row, Text):
        yield row.text
    elif isinstance(row, Completion):
        yield row.prompt
        yield row.completion
    else:
        yield from (message.content for message in _messages(row))


def _answers(row: Row) -> Iterable[str]:
    if isinstance(row, Text):
        return [row.text]
    if isinstance(row, Completion):
        return [row.completion]
    return [m.content for m in _messages(row) if m.role == "assistant" and not m.tool_calls]


def _messages(row: Row) -> tuple[Message, ...]:
    if isinstance(row, Preference):
        return (*row.prompt, *row.chosen, *row.rejected)
    assert not isinstance(row, Text | Completion)
    return row.messages


def _texts_of(files: Sequence[Path]) -> Iterator[str]:
    """Every text of the files, whatever form their rows have."""
    for file in find_files(list(files)) if files else ():
        for _, value in read_values(file):
            yield from _strings(value)


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)


def _shingles(text: str) -> Iterator[int]:
    words = [match.group() for match in _WORDS.finditer(text.casefold())]
    for start in range(len(words) - SHINGLE + 1):
        yield _hash(" ".join(words[start : start + SHINGLE]))


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "little")
