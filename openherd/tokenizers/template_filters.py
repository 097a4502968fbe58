"""The filters a chat template may use, each bounded, and string formatting under the same bounds.

From Jinja as they are where their work is linear in sizes already paid for; our own where Jinja's would lose the
sources of a string or make more text than it is given. A filter outside the table is an error when the template loads.
"""

from __future__ import annotations

import functools
import json
import re
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from jinja2 import Environment
from jinja2.filters import FILTERS as JINJA_FILTERS
from jinja2.sandbox import SandboxedFormatter

from openherd.errors import TemplateError
from openherd.tokenizers.budget import reserve, tick
from openherd.tokenizers.provenance import TEMPLATE, UNKNOWN, Source, TracedStr, concat, source_of, traced

_MAX_INDENT = 16
_WIDE = re.compile(r"\d{4,}|\*")  # a field padded to 1,000 characters or more, or to a width given as a value
_PERCENT_FIELD = re.compile(r"%(?:\([^()]{0,100}\))?[^a-zA-Z%]*")
_CHARS_PER_NUMBER = 24  # of the longest float
_MAX_DIGITS = 300  # to round to, before or after the point; a float has no more
_WORD_BREAK = re.compile(r"([-\s({\[<]+)")
# Python hashes integers modulo 2**61 - 1: with larger ones a set or dict of n elements can be made to take n**2 steps.
MAX_BITS = 64
_FROM_JINJA = (
    "abs count d default dictsort first float items last length list map max min reject rejectattr replace "
    "reverse select selectattr sort trim unique upper lower"
)


def text(value: Any) -> str:
    """The text of any value a template can print; only strings keep their sources."""
    if isinstance(value, str):
        return str(value)
    weigh(value, printing=True)
    printed = str(value)
    reserve(len(printed))
    return printed


def weigh(value: Any, *, printing: bool = False) -> int:
    """Count every element of a container as a step, as often as it occurs in it; `printing`: and as text.

    Returns about how many characters its elements print.
    """
    chars = 0
    waiting = [value] if isinstance(value, (list, tuple, Mapping)) else []
    while waiting:
        item = waiting.pop()
        for child in (*item.keys(), *item.values()) if isinstance(item, Mapping) else item:
            tick()
            if isinstance(child, (list, tuple, Mapping)):
                waiting.append(child)
            elif printing and isinstance(child, str):
                reserve(len(child))
            chars += len(child) if isinstance(child, str) else _CHARS_PER_NUMBER
    return chars


def stepped(function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter or test as a step of the budget, with containers weighed on the way in and out."""

    @functools.wraps(function)  # keeps the marks by which Jinja passes the environment
    def step(*args: Any, **kwargs: Any) -> Any:
        tick()
        for value in (*args, *kwargs.values()):
            weigh(value)
        result = function(*map(traced, args), **kwargs)
        weigh(result)
        return traced(result)

    return step


def check_percent(template: str, values: Any) -> None:
    """Refuse printf-style fields that pad without bound; pay for what they print. A mapping's values print often."""
    fields = _PERCENT_FIELD.findall(template)
    for field in fields:
        tick()
        _check_width(re.sub(r"^%\([^()]*\)", "", field))
    weigh(values, printing=True)
    if isinstance(values, Mapping):
        longest = max((len(v) if isinstance(v, str) else weigh([v]) for v in values.values()), default=0)
        reserve(len(template) + len(fields) * longest)


def check_integer(value: Any) -> Any:
    """`value`, unless it is an integer of more than 64 bits."""
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise TemplateError(f"the chat template has an integer of more than {MAX_BITS} bits")
    return value


def format_fields(environment: Environment, template: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """`str.format` in the sandbox. The template's own words stay its own only if all of them are."""
    formatter = SandboxedFormatter(environment)
    pieces: list[str] = []
    next_field = 0
    for literal, field, spec, conversion in string.Formatter().parse(str.__str__(template)):
        tick()
        pieces.append(TracedStr.of(literal, source_of(template) or UNKNOWN))
        if field is None:
            continue
        _check_width(spec or "")
        if not field or field[0] in ".[":
            field = f"{next_field}{field}"
            next_field += 1
        value, _ = formatter.get_field(field, args, kwargs)
        if spec or conversion:
            pieces.append(format(formatter.convert_field(value, conversion), spec or ""))
            reserve(len(pieces[-1]))
        else:
            pieces.append(text(value))
    return concat(pieces)


def _check_width(spec: str) -> None:
    if _WIDE.search(spec) or "{" in spec or "(" in spec:
        raise TemplateError("the chat template formats with a width of 1000 characters or more, or with a nested one")


def _format(template: Any, *args: Any, **kwargs: Any) -> str:
    check_percent(text(template), kwargs or args)
    return TracedStr(text(template) % (kwargs or args))


def _join(values: Iterable[Any], d: str = "", attribute: str | int | None = None) -> str:
    if attribute is not None:
        raise TemplateError("the chat template joins by attribute; use map(attribute=...) | join")
    separator = d if isinstance(d, TracedStr) else TracedStr.of(d, TEMPLATE)  # the default is the filter's own
    return separator.join(map(text, values))


def _tojson(
    x: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """JSON as Hugging Face templates expect it: not escaped for HTML. One source throughout, or a user's."""
    if indent is not None and (not isinstance(indent, int) or not 0 <= indent <= _MAX_INDENT):
        raise TemplateError(f"the chat template indents JSON by {indent!r}; the most is {_MAX_INDENT}")
    weigh(x, printing=True)
    encoder = json.JSONEncoder(
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=tuple(separators) if separators else None,
        sort_keys=sort_keys,
    )
    chunks: list[str] = []
    length = 0
    for chunk in encoder.iterencode(x):
        chunks.append(str.__str__(chunk))
        length += len(chunk)
        reserve(len(chunk))
    reserve(length)
    sources = set(_sources(x))
    return TracedStr.of("".join(chunks), sources.pop() if len(sources) == 1 else UNKNOWN)


def _sources(value: Any) -> Iterable[Source]:
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            yield source_of(item) or UNKNOWN
        elif isinstance(item, Mapping):
            waiting += (*item.keys(), *item.values())
        elif isinstance(item, (list, tuple)):
            waiting += item


def _indent(s: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    """Jinja's `indent`, over pieces that keep their sources."""
    margin = width if isinstance(width, str) else " " * max(0, min(width, _MAX_INDENT + 1))
    if len(margin) > _MAX_INDENT:
        raise TemplateError(f"the chat template indents by more than {_MAX_INDENT} characters")
    margin = TracedStr.of(margin, TEMPLATE)
    whole = text(s)
    # Jinja ends the text with a newline of its own before it splits it in lines
    lines = concat([whole, TracedStr.of("\n", source_of(whole[-1:]) or UNKNOWN)]).splitlines()
    out: list[str] = []
    for number, line in enumerate(lines):
        if number:
            out.append(TracedStr.of("\n", source_of(line) or UNKNOWN))
        if (line or blank) and (number or first):
            out.append(margin)
        out.append(line)
    if first and not lines[0] and not blank:
        out.insert(0, margin)
    return concat(out)


def _same(value: Any) -> str:
    """`string`, `safe`, `escape`: nothing is escaped in a prompt."""
    return text(value)


def _recased(method: str) -> Callable[[Any], str]:
    def filter_(value: Any) -> str:
        return str(getattr(TracedStr, method)(traced(text(value))))

    return filter_


def _title(value: Any) -> str:
    """Jinja's `title`, word by word."""
    words: list[str] = []
    for word in _WORD_BREAK.split(text(value)):
        tick()
        words.append(word[:1].upper() + word[1:].lower())
    return concat(words)


def _int(value: Any, default: int = 0, base: int = 10) -> Any:
    return check_integer(JINJA_FILTERS["int"](value, default, base))


def _round(value: Any, precision: int = 0, method: str = "common") -> Any:
    if not isinstance(precision, int) or abs(precision) > _MAX_DIGITS:
        raise TemplateError(f"the chat template rounds to {str(precision)[:32]} digits; the most is {_MAX_DIGITS}")
    return JINJA_FILTERS["round"](value, precision, method)


FILTERS: dict[str, Callable[..., Any]] = {name: JINJA_FILTERS[name] for name in _FROM_JINJA.split()} | {
    "capitalize": _recased("capitalize"),
    "format": _format,
    "indent": _indent,
    "join": _join,
    "int": _int,
    "round": _round,
    "safe": _same,
    "string": _same,
    "title": _title,
    "tojson": _tojson,
}
