"""The command `herd`: one short module per verb, imported only when that verb runs.

Conventions of a verb. Module `openherd/cli/VERB.py` has one function of the same name; its parameters are the verb's
flags, derived from their types by cyclopts, and its docstring's `Parameters` section is their help. Option groups
come from `openherd.cli.flags`, so that a default has one owner. The function prints results through
`openherd.cli.output`, raises `HerdError` for what a person can mend, and returns None or the exit status. Anything
heavy (NumPy, the engine, the terminal libraries) is imported inside the function.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["main"]

_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """`openherd.cli.app.main`, imported late: Ctrl-C is quiet from the first tenth of a second, which that takes."""
    try:
        from openherd.cli.app import main as run

        return run(arguments)
    except KeyboardInterrupt:
        return _INTERRUPTED
