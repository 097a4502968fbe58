"""What is wrong with a command, in the words of the command line: flags as they are typed, no Python types."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import get_args

from cyclopts import CoercionError, CycloptsError, MissingArgumentError
from cyclopts.exceptions import UnusedCliTokensError

from openherd.errors import InputError, OptionError
from openherd.options import BenchOptions, EngineOptions, SamplingParams

_KINDS = {int: "a whole number", float: "a number"}
_OPTION = re.compile(
    rf"({'|'.join(f.name for o in (SamplingParams, EngineOptions, BenchOptions) for f in fields(o))})\b"
)
_RECIPE_KEY = re.compile(r"(?:model|data|optimizer|run|lora|dpo|grpo)\.(\w+)\b(?!\.)")
"""A key of a training recipe, each of which is a flag."""


def from_parser(error: CycloptsError, verb: str | None) -> InputError:
    """What the parser refuses, in one line, with the next thing to try. `verb` is None before one is known."""
    if isinstance(error.__cause__, InputError):  # one of our own converters has said it
        return error.__cause__
    if isinstance(error, MissingArgumentError) and verb == "run" and error.argument and error.keyword is None:
        return InputError("herd run needs a prompt", hint="try: herd run -p TEXT")
    return InputError(_message(error, verb), hint=f"try: herd {verb} --help" if verb else "try: herd --help")


def with_flags(error: OptionError) -> OptionError:
    """The error with the option that its message begins with spelled as a flag: `top_p must` as `--top-p must`."""
    message = str(error.args[0])
    if (found := _OPTION.match(message) or _RECIPE_KEY.match(message)) is None:
        return error
    return OptionError(f"--{found[1].replace('_', '-')}{message[found.end() :]}", hint=error.hint)


def _message(error: CycloptsError, verb: str | None) -> str:
    said = " ".join(str(error).split())
    match error:
        case MissingArgumentError() if error.argument and "Did you mean" not in said:
            return f"{error.keyword} needs a value" if error.keyword else f"herd {verb} needs {error.argument.name}"
        case UnusedCliTokensError() if error.unused_tokens:
            return f"herd {verb} has no use for {', '.join(map(repr, error.unused_tokens))}"
        case CoercionError() if (
            error.token and error.token.keyword and error.msg is None and (kind := _kind(error.target_type))
        ):
            return f"{error.token.keyword} must be {kind}, not {error.token.value!r}"
    return said


def _kind(type_: type | None) -> str | None:
    return next((_KINDS[part] for part in (type_, *get_args(type_)) if part in _KINDS), None)
