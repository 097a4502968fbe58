"""From ids back to text while they arrive, never showing half a character."""

from __future__ import annotations

import codecs
from collections.abc import Callable


class IncrementalDetokenizer:
    """Turns ids into text one by one; the pieces and `flush()` together equal the text decoded at once.

    A token may end within a character: its bytes are held back until the character is whole or known to be
    broken, and a broken one becomes U+FFFD, exactly as `bytes.decode(errors="replace")` has it.
    """

    def __init__(self, visible_bytes: Callable[[int], bytes], *, strip_space: bool) -> None:
        """`visible_bytes`: bytes an id shows (none if skipped); `strip_space`: drop one space at the very start."""
        self._visible_bytes = visible_bytes
        self._strip_space = strip_space
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def add(self, token_id: int) -> str:
        """The text that became certain with this id; may be empty."""
        data = self._visible_bytes(token_id)
        if self._strip_space and data:
            self._strip_space = False
            data = data.removeprefix(b" ")
        return self._utf8.decode(data)

    def flush(self) -> str:
        """What is left at the end: U+FFFD for a character that never became whole. The next `add` starts afresh."""
        rest = self._utf8.decode(b"", final=True)
        self._utf8.reset()
        return rest
