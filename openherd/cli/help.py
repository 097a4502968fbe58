"""Help pages without what says nothing: empty defaults, and the empty word among choices.

A recipe's keys have a value that means "not said", "" or (), since TOML knows no null; what it stands for is in the
words of the key's help.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cyclopts.help import DefaultFormatter, HelpEntry, HelpPanel
    from rich.console import Console, ConsoleOptions

EMPTY = frozenset(('""', "()", ""))
"""Defaults as they are written on a page."""


class HelpPages:
    """A help formatter of cyclopts. Its own is imported with the first page: an answer needs none."""

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        from attrs import evolve

        entries = [without_empties(entry) for entry in panel.entries]
        _default()(console, options, evolve(panel, entries=entries))

    def render_usage(self, console: Console, options: ConsoleOptions, usage: Any) -> None:
        _default().render_usage(console, options, usage)

    def render_description(self, console: Console, options: ConsoleOptions, description: Any) -> None:
        _default().render_description(console, options, description)


def _default() -> DefaultFormatter:
    from cyclopts.help import DefaultFormatter

    return DefaultFormatter()


def without_empties(entry: HelpEntry) -> HelpEntry:
    """One flag's line."""
    from attrs import evolve

    choices = tuple(choice for choice in entry.choices if choice) if entry.choices else entry.choices
    return evolve(entry, choices=choices, default=None if entry.default in EMPTY else entry.default)
