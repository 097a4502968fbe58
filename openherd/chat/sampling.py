"""Sampling parameters as a person names and changes them while talking."""

from __future__ import annotations

import difflib
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields, replace
from typing import Any

from openherd.errors import OptionError
from openherd.options import SamplingParams, help_text


def _switch(text: str) -> bool:
    return {"on": True, "true": True, "off": False, "false": False}[text.lower()]


CHANGEABLE: dict[str, Callable[[str], Any]] = {
    "max_tokens": int,
    "temperature": float,
    "top_k": int,
    "top_p": float,
    "min_p": float,
    "repetition_penalty": float,
    "presence_penalty": float,
    "frequency_penalty": float,
    "seed": int,
    "stop": lambda text: (text,),
    "ignore_eos": _switch,
    "speculate": _switch,
}
"""Each parameter that makes sense in a conversation, with how its value is read."""


def described(params: SamplingParams, names: Sequence[str], columns: int) -> str:
    """These parameters with value and help, wrapped to `columns` so that the help stays in its column."""
    values = {name: _spelled(getattr(params, name)) for name in names}
    width, value_width = max(map(len, values)), max(map(len, values.values()))
    margin = " " * (width + value_width + 4)
    rows = [f"{name:{width}}  {value:{value_width}}  {_help(name)}" for name, value in values.items()]
    return "\n".join(_wrapped(row, margin, columns) for row in rows)


def why_repeated(params: SamplingParams) -> str:
    """Why the same question gets the same answer with these parameters; empty when it is drawn anew."""
    if params.temperature == 0:
        return "at temperature 0 the answer is the same each time; /params temperature 0.7 lets it vary"
    if params.seed is not None:
        return f"with the seed {params.seed} the answer is the same each time; /params seed default lets it vary"
    return ""


def known(name: str) -> str:
    """The parameter that a person means by `name`. Raises OptionError."""
    name = name.replace("-", "_")
    if name not in CHANGEABLE:
        near = difflib.get_close_matches(name, CHANGEABLE, n=1)
        guess = f"; did you mean {near[0]}?" if near else ""
        raise OptionError(f"no parameter is called {name!r}{guess}", hint=f"there are {', '.join(CHANGEABLE)}")
    return name


def changed(params: SamplingParams, name: str, text: str) -> SamplingParams:
    """`params` with one value read from `text`; `default` goes back to the default. Raises OptionError."""
    name = known(name)
    return replace(params, **{name: _default(name) if text == "default" else _read(name, text)})


def _read(name: str, text: str) -> Any:
    try:
        return CHANGEABLE[name](text)
    except (ValueError, KeyError):
        raise OptionError(f"{name} cannot be {text!r}", hint=help_text(SamplingParams, name)) from None


def _help(name: str) -> str:
    return " ".join(help_text(SamplingParams, name).split())


def _wrapped(row: str, margin: str, columns: int) -> str:
    if columns < 2 * len(margin):  # too narrow for columns: the terminal wraps it
        return row
    return textwrap.fill(row, columns, subsequent_indent=margin, break_on_hyphens=False)


def _default(name: str) -> Any:
    field = next(f for f in fields(SamplingParams) if f.name == name)
    assert field.default is not MISSING
    return field.default


def _spelled(value: object) -> str:
    return "none" if value in (None, ()) else str(value)
