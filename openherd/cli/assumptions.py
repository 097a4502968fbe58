"""Says what a model's files left open, before its answers are believed."""

from __future__ import annotations

from collections.abc import Iterable

from openherd.cli import output


def say(assumed: Iterable[str]) -> None:
    """A line on standard error for each."""
    for fact in assumed:
        output.note(f"herd: assumed: {fact}")
