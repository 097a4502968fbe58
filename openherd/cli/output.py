"""Where a verb's words go: results to standard output, everything else to standard error.

With `--json` standard output carries one JSON document (or one per line), also when the verb fails:
`{"error": {"type", "message", "hint"}}`, beside the same exit status.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from openherd.chat.visible import visible
from openherd.errors import HerdError


def document(value: Any) -> None:
    """One JSON document on one line of standard output; NaN and infinity are refused, as JSON does."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """A line about the work (timing, warnings) for the person, out of the way of the result."""
    print(text, file=sys.stderr, flush=True)


def fail(error: HerdError, *, as_json: bool) -> None:
    """Say what went wrong, why, and what to try next. Text that came from a file cannot steer the terminal."""
    message = str(Exception.__str__(error))
    if as_json:
        document({"error": {"type": type(error).__name__, "message": message, "hint": error.hint}})
        return
    note(f"herd: error: {visible(message)}")
    if error.hint:
        note(f"  {visible(error.hint)}")
