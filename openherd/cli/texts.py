"""Texts that a verb reads: a file, or standard input."""

from __future__ import annotations

import sys
from pathlib import Path

from openherd.errors import InputError

MAX_FILE_BYTES = 256 << 20


def read_text(name: str) -> str:
    """The text of a file or of standard input. Raises `InputError` for what is not UTF-8 text."""
    if name == "-":
        data, shown = sys.stdin.buffer.read(MAX_FILE_BYTES + 1), "standard input"
    else:
        shown = name
        try:
            with Path(name).open("rb") as file:
                data = file.read(MAX_FILE_BYTES + 1)
        except OSError as why:
            raise InputError(f"cannot read {name}: {why.strerror}") from None
    if len(data) > MAX_FILE_BYTES:
        raise InputError(f"{shown} is longer than {MAX_FILE_BYTES >> 20} MiB; take a part of it")
    try:
        return data.decode()
    except UnicodeDecodeError as why:
        raise InputError(f"{shown} is not UTF-8 text: byte {why.start} is 0x{data[why.start]:02x}") from None
