"""TOML files of strangers, read within bounds. TOML: v1.0.0, as the standard library reads it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from openherd.errors import InputError

# The parser's work and memory grow with the square of a dotted key's parts; keys of ours have two at most.
_DOTTED = re.compile(r"""(?<![\w-])(?:(?:[\w-]++|"(?:[^"\\\n]|\\.)*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){32}""")


def read_text(path: Path, what: str, max_bytes: int) -> str:
    """The text of `path`, which errors call `what`. Raises InputError."""
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise InputError(f"cannot read {what} {path}: {error.strerror}") from None
    if len(data) > max_bytes:
        raise InputError(f"{what} {path} is longer than {max_bytes} bytes")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{path} is not TOML: it is not UTF-8 text") from None


def parse_toml(text: str, path: Path) -> dict[str, Any]:
    """The document that `text` is; `path` is for errors. Raises InputError."""
    if _DOTTED.search(text):
        raise InputError(f"{path} has a key of more than 32 parts")
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split()) if isinstance(error, ValueError) else "it is nested too deeply"
        raise InputError(f"{path} is not TOML: {reason[:300]}") from None
