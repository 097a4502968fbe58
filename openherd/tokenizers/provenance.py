"""TracedStr: a string that remembers who wrote each of its characters.

Chat templates mix their own words with what people said; only their own words may become control tokens. Text that
goes through an operation which cannot follow it comes out as a plain `str`, and a plain `str` counts as a user's:
losing track is always on the safe side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, SupportsIndex, TypeVar

from openherd.errors import TemplateError
from openherd.messages import Origin
from openherd.tokenizers.budget import reserve, tick


class Source(NamedTuple):
    origin: Origin
    message_index: int | None = None


TEMPLATE = Source(Origin.TEMPLATE)
UNKNOWN = Source(Origin.USER)

T = TypeVar("T")
Sought = TypeVar("Sought", str, str | None)

Run = tuple[int, Source]  # that many characters from that source

_LONG = 1000  # characters; comparing strings that are both longer is a step of its own
# What Python searches for from the right, and strips, it looks for in as much time as the product of both lengths.
_MAX_SOUGHT = 100


class TracedStr(str):
    """A str with runs of sources. Equal to, hashed as and ordered like the plain string.

    Operations that cut, join, replace, strip or change case keep the sources; the others give a plain `str`.
    """

    __slots__ = ("_runs",)
    _runs: tuple[Run, ...]

    def __new__(cls, text: str, runs: tuple[Run, ...] | None = None) -> TracedStr:
        """`runs` cover `text` from left to right; None: nobody knows, so it counts as a user's."""
        self = super().__new__(cls, text)
        self._runs = ((len(text), UNKNOWN),) if runs is None else runs
        return self

    @classmethod
    def of(cls, text: str, source: Source) -> TracedStr:
        """All of `text` from one source."""
        return cls(text, ((len(text), source),))

    @property
    def _source(self) -> Source | None:
        """The one source of all characters, if it is one."""
        return self._runs[0][1] if len(self._runs) == 1 else None

    def __str__(self) -> TracedStr:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (str.__str__(self), self._runs))

    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        return str.__eq__(self, _compared(self, other))

    def __ne__(self, other: object) -> bool:
        return str.__ne__(self, _compared(self, other))

    def __lt__(self, other: str) -> bool:
        return str.__lt__(self, _compared(self, other))

    def __le__(self, other: str) -> bool:
        return str.__le__(self, _compared(self, other))

    def __gt__(self, other: str) -> bool:
        return str.__gt__(self, _compared(self, other))

    def __ge__(self, other: str) -> bool:
        return str.__ge__(self, _compared(self, other))

    def __add__(self, other: str) -> TracedStr:
        return concat((self, other)) if isinstance(other, str) else NotImplemented

    def __radd__(self, other: str) -> TracedStr:
        return concat((other, self)) if isinstance(other, str) else NotImplemented

    def __mul__(self, times: SupportsIndex) -> TracedStr:
        n = max(0, times.__index__())
        reserve(len(self) * n)
        source = self._source
        return TracedStr(str.__mul__(self, n), None if source is None else ((len(self) * n, source),))

    __rmul__ = __mul__

    def __getitem__(self, key: SupportsIndex | slice) -> TracedStr:
        text = str.__getitem__(self, key)
        if isinstance(key, slice):
            start, stop, step = key.indices(len(self))
            if step != 1:
                source = self._source
                return TracedStr(text, None if source is None else ((len(text), source),))
        else:
            start = key.__index__()
            start += len(self) if start < 0 else 0
            stop = start + 1
        return TracedStr(text, tuple(_cut(self._runs, start, stop)))

    def __iter__(self) -> Iterator[TracedStr]:
        for text, source in self._runs_with_text():
            for char in text:
                tick()
                yield TracedStr.of(char, source)

    def _runs_with_text(self) -> Iterator[tuple[str, Source]]:
        start = 0
        for length, source in self._runs:
            yield str.__getitem__(self, slice(start, start + length)), source
            start += length

    def join(self, parts: Iterable[str]) -> TracedStr:
        joined: list[str] = []
        for part in parts:
            tick()
            if joined:
                joined.append(self)
            joined.append(part)
        return concat(joined)

    def replace(self, old: str, new: str, count: SupportsIndex = -1) -> TracedStr:
        """What replaces a person's words counts as that person's, whoever wrote the replacement."""
        found = str.count(self, old)
        limit = count.__index__()
        times = found if limit < 0 else min(found, limit)
        length = len(self) + times * (len(new) - len(old))
        reserve(max(length, len(self)))
        source = self._source
        if times == 0:
            return self
        if source is not None and (source is not TEMPLATE or source_of(new) is TEMPLATE):
            return TracedStr(str.replace(self, old, new, times), ((length, source),))
        return self._replace_in_runs(old, new, times)

    def _replace_in_runs(self, old: str, new: str, times: int) -> TracedStr:
        if not old:
            return TracedStr(str.replace(self, old, new, times))
        pieces: list[str] = []
        start = 0
        for _ in range(times):
            tick()
            at = str.find(self, old, start)
            pieces.append(self[start:at])
            replaced = self[at : at + len(old)]._source
            trusted = replaced is TEMPLATE
            pieces.append(new if trusted else TracedStr.of(new, replaced or UNKNOWN))
            start = at + len(old)
        return concat([*pieces, self[start:]])

    def strip(self, chars: str | None = None, /) -> TracedStr:
        return self.lstrip(chars).rstrip(chars)

    def lstrip(self, chars: str | None = None, /) -> TracedStr:
        return self[len(self) - len(str.lstrip(self, _sought(chars))) :]

    def rstrip(self, chars: str | None = None, /) -> TracedStr:
        return self[: len(str.rstrip(self, _sought(chars)))]

    def rfind(self, sub: str, *span: SupportsIndex | None) -> int:
        return str.rfind(self, _sought(sub), *span)

    def rindex(self, sub: str, *span: SupportsIndex | None) -> int:
        return str.rindex(self, _sought(sub), *span)

    def removeprefix(self, prefix: str, /) -> TracedStr:
        return self[len(prefix) :] if self.startswith(prefix) else self

    def removesuffix(self, suffix: str, /) -> TracedStr:
        return self[: len(self) - len(suffix)] if self.endswith(suffix) else self

    def split(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        return self._located(str.split(self, sep, maxsplit), sep)

    def rsplit(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        return self._located(str.rsplit(self, _sought(sep), maxsplit), sep)

    def splitlines(self, keepends: bool = False) -> list[str]:
        return self._located(str.splitlines(self, keepends), None)

    def partition(self, sep: str, /) -> tuple[str, str, str]:
        head, middle, _ = str.partition(self, sep)
        return self._in_three(len(head), len(head) + len(middle))

    def rpartition(self, sep: str, /) -> tuple[str, str, str]:
        head, middle, _ = str.rpartition(self, _sought(sep))
        return self._in_three(len(head), len(head) + len(middle))

    def _in_three(self, first: int, second: int) -> tuple[str, str, str]:
        return self[:first], self[first:second], self[second:]

    def _located(self, parts: list[str], sep: str | None) -> list[str]:
        """The parts of a split again, as slices of this string: they follow each other in it."""
        located: list[str] = []
        start = 0
        for part in parts:
            tick()
            at = start if sep else str.find(self, part, start)
            located.append(self[at : at + len(part)])
            start = at + len(part) + len(sep or "")
        return located

    def upper(self) -> TracedStr:
        return self._recased(str.upper)

    def lower(self) -> TracedStr:
        return self._recased(str.lower)

    def title(self) -> TracedStr:
        return self._recased(str.title)

    def capitalize(self) -> TracedStr:
        return self._recased(str.capitalize)

    def _recased(self, change: Callable[[str], str]) -> TracedStr:
        reserve(len(self))
        text = change(self)
        if len(text) == len(self):
            return TracedStr(text, self._runs)
        source = self._source  # "ß".upper() is longer: borders between sources cannot be found again
        return TracedStr(text, None if source is None else ((len(text), source),))


def _compared(text: str, other: T) -> T:
    """`other`, after one step if both are long: one `in`, `sort` or `==` of lists compares thousands of strings."""
    if isinstance(other, str) and min(len(text), len(other)) > _LONG:
        tick()
    return other


def _sought(what: Sought) -> Sought:
    if what is not None and len(what) > _MAX_SOUGHT:
        raise TemplateError(f"the chat template strips, or seeks from the right, more than {_MAX_SOUGHT} characters")
    return what


def traced(value: Any) -> Any:
    """A plain string as one whose methods are bounded; anything else as it is."""
    if isinstance(value, str) and not isinstance(value, TracedStr):
        return TracedStr(str.__str__(value))
    return value


def source_of(text: str) -> Source | None:
    """The one source of `text`; None if several. A plain `str` is `UNKNOWN`."""
    return text._source if isinstance(text, TracedStr) else UNKNOWN


def runs_of(text: str) -> tuple[Run, ...]:
    """Sources of `text` from left to right."""
    return text._runs if isinstance(text, TracedStr) else ((len(text), UNKNOWN),)


def concat(parts: Iterable[str]) -> TracedStr:
    """Join strings, keeping the sources of each. A `TypeError` for anything that is not a string."""
    parts = list(parts)
    reserve(sum(map(len, parts)))
    runs: list[Run] = []
    for part in parts:
        for length, source in runs_of(part):
            tick()
            if runs and runs[-1][1] == source:
                runs[-1] = (runs[-1][0] + length, source)
            elif length:
                runs.append((length, source))
    return TracedStr("".join(parts), tuple(runs) or ((0, TEMPLATE),))


def _cut(runs: tuple[Run, ...], start: int, stop: int) -> Iterator[Run]:
    """The runs that cover characters `start` to `stop`."""
    position = 0
    found = False
    for length, source in runs:
        tick()
        overlap = min(stop, position + length) - max(start, position)
        if overlap > 0:
            found = True
            yield overlap, source
        position += length
    if not found:
        yield 0, TEMPLATE
