"""What training will see of a row: each token, and whether it is learnt, for the terminal and as a page of HTML.

The colours are not the only sign: in the terminal learnt text is also underlined, on the page it is bold.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from openherd.tokenizers import Tokenizer
from openherd.train.encoding import Encoded

_LEARNT, _GIVEN, _CONTROL, _RESET = "\x1b[4;32m", "\x1b[2m", "\x1b[35m", "\x1b[0m"


@dataclass(frozen=True, slots=True)
class Piece:
    """Neighbouring tokens that are shown alike. Bytes of a character that tokens share stand with its last token."""

    text: str
    learnt: bool
    control: bool
    tokens: int


def pieces(tokenizer: Tokenizer, document: Encoded) -> Iterator[Piece]:
    """The document as text, cut where learnt turns to given, or text to control tokens."""
    detokenizer = tokenizer.detokenizer(skip_special=False, continues=True)
    text, tokens, present = "", 0, None
    for token, learnt in zip(document.ids.tolist(), document.mask.tolist(), strict=True):
        kind = (bool(learnt), tokenizer.is_control(token))
        if present is not None and kind != present:
            yield Piece(text, *present, tokens)
            text, tokens = "", 0
        present = kind
        text += detokenizer.add(token)
        tokens += 1
    if present is not None:
        yield Piece(text + detokenizer.flush(), *present, tokens)


def as_terminal(tokenizer: Tokenizer, document: Encoded, *, colour: bool) -> str:
    """Learnt text green and underlined, control tokens magenta, the rest dim; without colour learnt text in ⟦ ⟧."""
    shown = []
    for piece in pieces(tokenizer, document):
        text = _visible(piece.text)
        if colour:
            style = (_CONTROL if piece.control else "") + (_LEARNT if piece.learnt else "" if piece.control else _GIVEN)
            text = "\n".join(f"{style}{line}{_RESET}" if line else "" for line in text.split("\n"))
        elif piece.learnt:
            text = f"⟦{text}⟧"
        shown.append(text)
    return "".join(shown)


def as_page(tokenizer: Tokenizer, documents: Sequence[tuple[str, Encoded]]) -> str:
    """One page of HTML without scripts and outside requests; `documents` are (where, document)."""
    body = []
    for where, document in documents:
        marks = "".join(
            f'<span class="{"learnt" if piece.learnt else "given"}{" control" if piece.control else ""}" '
            f'title="{piece.tokens} token{"s" * (piece.tokens != 1)}">{html.escape(piece.text)}</span>'
            for piece in pieces(tokenizer, document)
        )
        body.append(
            f"<h2>{html.escape(where)}</h2><p>{document.num_learnt} of {len(document.ids)} tokens are learnt</p>"
            f"<pre>{marks}</pre>"
        )
    return _PAGE.format(body="\n".join(body))


def _visible(text: str) -> str:
    """Text of a file cannot steer the terminal."""
    return "".join(c if c == "\n" or c.isprintable() else f"\\x{ord(c):02x}" for c in text)


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>What is learnt</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }}
pre {{ white-space: pre-wrap; overflow-wrap: anywhere; padding: 1rem; border: 1px solid #8886; border-radius: 6px; }}
.given {{ opacity: .65; }}
.learnt {{ background: #2a84; font-weight: 600; }}
.control {{ color: #a0a; }}
</style></head><body>
<h1>What is learnt</h1>
<p><span class="learnt">Learnt</span>, <span class="given">given</span>,
<span class="control">control tokens</span>.</p>
{body}
</body></html>
"""
