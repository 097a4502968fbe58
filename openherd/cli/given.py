"""Which options were typed: once parsed, a value that was typed and a default look alike, and only the first wins over
a configuration file."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, ArgumentCollection, Parameter, Token

from openherd.errors import InputError

_NAME = "--given"
GivenFlags = Annotated[tuple[str, ...], Parameter(name=_NAME, show=False)]
"""A verb's parameter of this type is filled by `note_given`, with field names."""


def note_given(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Tell the verb, if it asks. Runs between the parsing of words and of values."""
    kept = next((argument for argument in arguments if argument.name == _NAME), None)
    if kept is None:
        return
    if kept.tokens:
        raise InputError(f"no option is called {_NAME}")
    typed = [argument.name for argument in arguments if argument.tokens]
    kept.tokens.extend(Token(keyword=_NAME, value=name.removeprefix("--").replace("-", "_")) for name in typed)
