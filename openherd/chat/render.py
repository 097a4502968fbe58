"""Markdown that looks right while it is still being written.

Blocks that can no longer change are printed once and scroll away like any output. Only the block that is being
written is redrawn, cropped to its last lines when it is taller than the screen, so the terminal never flickers over
text that has left it. The model's control characters are shown (see `visible`), and links show their address.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.markdown import Markdown
from rich.segment import Segment

from openherd.visible import visible

_REDRAW_S = 0.08  # twelve times a second is smooth, and leaves the cores to the model
_FENCES = ("```", "~~~")


def show(console: Console, pieces: Iterable[str]) -> None:
    """Draw Markdown as its pieces come. An exception of `pieces` passes on after what there is has been drawn."""
    pending = ""
    drawn = 0.0
    try:
        with Live(console=console, auto_refresh=False, transient=True) as live:
            for piece in pieces:
                finished, pending = split_blocks(pending + visible(piece))
                if finished:
                    console.print(_markdown(finished))
                if finished or time.monotonic() - drawn >= _REDRAW_S:
                    live.update(Tail(pending), refresh=True)
                    drawn = time.monotonic()
    finally:
        # After Live, whose end takes the redrawn block away.
        if pending.strip():
            console.print(_markdown(pending))


def split_blocks(text: str) -> tuple[str, str]:
    """`text` as (blocks that nothing after them can change, the rest).

    A block is over when a line at the left margin follows a blank line outside a fence: an indented line could still
    belong to a list.
    """
    fence = ""
    boundary = position = 0
    blank_before = False
    for line in text.splitlines(keepends=True):
        stripped = line.strip()
        if not fence and blank_before and stripped and not line[0].isspace():
            boundary = position
        if not fence and stripped.startswith(_FENCES):
            fence = stripped[:3]
        elif fence and stripped.startswith(fence) and not stripped.strip(fence[0]):
            fence = ""
        blank_before = not stripped and line.endswith("\n")
        position += len(line)
    return text[:boundary], text[boundary:]


class Tail:
    """The last lines of Markdown that fit the screen."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = console.render_lines(_markdown(self._text), options, pad=False)
        for line in lines[-max(console.size.height - 2, 1) :]:
            yield from line
            yield Segment.line()


def _markdown(text: str) -> Markdown:
    return Markdown(text, hyperlinks=False)
