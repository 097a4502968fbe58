"""Sampling parameters as a person names and changes them while talking."""

from __future__ import annotations

import difflib
from collections.abc import Callable
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
}
"""Each parameter that makes sense in a conversation, with how its value is read."""


def described(params: SamplingParams) -> str:
    """Every changeable parameter with its value and its help, a line each."""
    width = max(map(len, CHANGEABLE))
    return "\n".join(
        f"{name:{width}}  {_spelled(getattr(params, name)):8}  {help_text(SamplingParams, name)}" for name in CHANGEABLE
    )


def changed(params: SamplingParams, name: str, text: str) -> SamplingParams:
    """`params` with one value read from `text`; `default` goes back to the default. Raises OptionError."""
    name = name.replace("-", "_")
    if name not in CHANGEABLE:
        near = difflib.get_close_matches(name, CHANGEABLE, n=1)
        guess = f"; did you mean {near[0]}?" if near else ""
        raise OptionError(f"no parameter is called {name!r}{guess}", hint=f"there are {', '.join(CHANGEABLE)}")
    return replace(params, **{name: _default(name) if text == "default" else _read(name, text)})


def _read(name: str, text: str) -> Any:
    try:
        return CHANGEABLE[name](text)
    except (ValueError, KeyError):
        raise OptionError(f"{name} cannot be {text!r}", hint=help_text(SamplingParams, name)) from None


def _default(name: str) -> Any:
    field = next(f for f in fields(SamplingParams) if f.name == name)
    assert field.default is not MISSING
    return field.default


def _spelled(value: object) -> str:
    return "none" if value in (None, ()) else str(value)
