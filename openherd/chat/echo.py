"""The terminal keeps quiet while an answer is drawn.

An echoed key, and the ^C of an interrupt, would move the cursor under the text that is being redrawn. What is typed
meanwhile waits in the terminal and stands in the next prompt. Ctrl-C still interrupts.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

_LOCAL_FLAGS = 3  # their place in what tcgetattr gives


@contextmanager
def no_echo() -> Iterator[None]:
    """Switch the echo of standard input off for the duration; does nothing where it is no terminal."""
    try:
        import termios
    except ImportError:  # a system without POSIX terminals
        yield
        return
    try:
        terminal = sys.stdin.fileno()
        before = termios.tcgetattr(terminal)
    except (termios.error, ValueError, OSError):
        yield
        return
    quiet = [*before]
    quiet[_LOCAL_FLAGS] = before[_LOCAL_FLAGS] & ~termios.ECHO
    termios.tcsetattr(terminal, termios.TCSANOW, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSANOW, before)
