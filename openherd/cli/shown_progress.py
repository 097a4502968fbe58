"""Progress on a terminal whose lines may hold the names of strangers' files."""

from __future__ import annotations

from openherd.chat.visible import visible
from openherd.store.progress import TerminalProgress


class ShownProgress(TerminalProgress):
    """Control characters are shown, not obeyed."""

    def say(self, text: str) -> None:
        super().say(visible(text))
