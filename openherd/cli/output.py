"""Where a verb's words go: results to standard output, everything else to standard error.

With `--json` standard output carries one JSON document (or one per line), also when the verb fails:
`{"error": {"type", "message", "hint"}}`, beside the same exit status.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Iterable
from typing import Any

from openherd.errors import HerdError
from openherd.visible import visible

MAX_ERROR_CHARACTERS = 2000


def prepare_streams() -> None:
    """Make the standard streams usable, whatever the caller left of them. Raises HerdError when output is closed.

    A closed stream becomes the null device: the next file to be opened would otherwise get its number, and be written
    to as if it were that stream. A character that the terminal's encoding lacks is replaced instead of refused.
    """
    output_is_closed = sys.stdout is None
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8"))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    if output_is_closed:
        raise HerdError("standard output is closed, so there is nowhere to write the result")


def discard_stdout() -> None:
    """From here on standard output is the null device: a closed pipe or a full disk refused what still waits to be
    written, and the interpreter's last flush would complain once more and choose the exit status."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def document(value: Any) -> None:
    """One JSON document on one line of standard output; NaN and infinity are refused, as JSON does."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:  # another encoding, or a file name that is not UTF-8: ASCII spells everything
        text = json.dumps(value, allow_nan=False)
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def lines(found: Iterable[str]) -> None:
    """A report on standard output. Names in it are strangers' words: they neither steer the terminal nor add a line."""
    print("\n".join(visible(line).replace("\n", "\u240a") for line in found))


def note(text: str) -> None:
    """A line about the work (timing, warnings) for the person; the result counts even where nobody can read it."""
    with contextlib.suppress(OSError):
        print(visible(text), file=sys.stderr, flush=True)  # names of files are strangers' words


def fail(error: HerdError, *, as_json: bool) -> None:
    """Say in a line what went wrong and why, and in another what to try next.

    Text that came from a file cannot steer the terminal, nor fill it.
    """
    message = str(Exception.__str__(error))
    if as_json:
        try:
            return document({"error": {"type": type(error).__name__, "message": message, "hint": error.hint}})
        except OSError:  # a full disk or a pipe without a reader; standard error may still do
            discard_stdout()
    note(f"herd: error: {_one_line(message)}")
    if error.hint:
        note(f"  {_one_line(error.hint)}")


def _one_line(text: str) -> str:
    shown = visible(" ".join(text.split()))
    return shown if len(shown) <= MAX_ERROR_CHARACTERS else shown[:MAX_ERROR_CHARACTERS] + " ..."
