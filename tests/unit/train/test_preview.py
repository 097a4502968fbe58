"""The preview shows every token once, learnt ones marked, and lets no text steer the terminal or the page."""

from __future__ import annotations

import re

from openherd.messages import Message
from openherd.train.encoding import RowEncoder
from openherd.train.preview import as_page, as_terminal, pieces
from openherd.train.rows import Conversation
from tests.unit.train.chat_model import template, tokenizer


def encoded(question: str, answer: str) -> tuple[RowEncoder, list]:
    encoder = RowEncoder(tokenizer(), template())
    return encoder, encoder.encode(Conversation((Message("user", question), Message("assistant", answer))), "f:1")


def test_learnt_text_is_marked_and_nothing_is_lost() -> None:
    encoder, (document,) = encoded("hello é", "wor ü")
    shown = as_terminal(encoder.tokenizer, document, colour=False)
    assert shown == "<s>user\nhello é<|end|>\n<s>assistant\n⟦wor ü⟧⟦<|end|>⟧\n"
    assert sum(piece.tokens for piece in pieces(encoder.tokenizer, document)) == len(document.ids)
    coloured = as_terminal(encoder.tokenizer, document, colour=True)
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == shown.replace("⟦", "").replace("⟧", "")
    assert "\x1b[4;32mwor ü\x1b[0m" in coloured


def test_text_cannot_steer_the_terminal_or_the_page() -> None:
    encoder, (document,) = encoded("\x1b[2J<script>alert(1)</script>", "ok")
    assert "\x1b" not in as_terminal(encoder.tokenizer, document, colour=False)
    page = as_page(encoder.tokenizer, [("<b>.jsonl:1", document)])
    assert "<script" not in page
    assert "<b>.jsonl" not in page
    assert 'class="learnt"' in page
