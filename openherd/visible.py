"""Makes untrusted text harmless on a terminal: control characters are shown, not obeyed.

A model, a file name or a header can carry escape sequences that move the cursor, retitle the window or write to the
clipboard (ECMA-48, xterm's OSC 52), and bidirectional overrides that make text read as what it is not (Boucher and
Anderson 2021, "Trojan Source"). Each character is judged alone, so text may arrive in pieces.
"""

from __future__ import annotations

_CONTROL_PICTURES = 0x2400
_KEPT = frozenset("\n\t")
_BIDI = [0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
_SEPARATORS = [0x2028, 0x2029]  # line breaks to some terminals
_TABLE: dict[int, str] = {
    **{code: chr(_CONTROL_PICTURES + code) for code in range(0x20) if chr(code) not in _KEPT},
    0x7F: "\u2421",
    **{code: f"<U+{code:04X}>" for code in [*range(0x80, 0xA0), *_BIDI, *_SEPARATORS]},
    **dict.fromkeys(range(55296, 57344), "�"),  # lone surrogates cannot be encoded
}


def visible(text: str) -> str:
    """`text` with every control and direction-changing character replaced by a picture of it; newline and tab stay."""
    return text.translate(_TABLE)
