"""The command `herd`: one short module per verb, imported only when that verb runs.

Conventions of a verb. Module `openherd/cli/VERB.py` has one function of the same name; its parameters are the verb's
flags, derived from their types by cyclopts, and its docstring's `Parameters` section is their help. Option groups
come from `openherd.cli.flags`, so that a default has one owner. The function prints results through
`openherd.cli.output`, raises `HerdError` for what a person can mend, and returns None or the exit status. Anything
heavy (NumPy, the engine, the terminal libraries) is imported inside the function.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Sequence

__all__ = ["main"]

_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `herd` with these arguments and return the exit status; without arguments, run as the process's command.

    `openherd.cli.app` is imported late: Ctrl-C is quiet from the first tenth of a second, which that takes.
    """
    try:
        from openherd.cli.app import main as run

        status = run(arguments)
    except KeyboardInterrupt:
        status = _INTERRUPTED
    if arguments is None:
        _leave(status)
    return status


def _leave(status: int) -> None:
    """End the process at once, if nothing is left to do but to take the interpreter apart, which takes 25 ms.

    Threads that still run, and output that cannot be written, are left to the interpreter's own way out.
    """
    if threading.active_count() > 1:
        return
    try:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    except Exception:
        return
    os._exit(status)
