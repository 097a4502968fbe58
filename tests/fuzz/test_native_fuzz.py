"""Garbage for the compiled core ends in an exception, never in the end of the process."""

from __future__ import annotations

import subprocess
import sys

from tests.fuzz.mutations import seconds


def test_garbage_never_ends_the_process() -> None:
    """A failure's output ends with the seed: `python -m tests.fuzz.native_attacks 0.1 SEED` meets it again."""
    budget = seconds(5)
    command = [sys.executable, "-m", "tests.fuzz.native_attacks", str(budget)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=budget + 120)
    assert done.returncode == 0, done.stdout[-200:] + done.stderr[-4000:]
