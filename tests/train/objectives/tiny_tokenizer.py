"""A tokenizer for the tiny model: one token for each of 62 characters, and an end."""

from __future__ import annotations

import string

from openherd.tokenizers import Tokenizer
from openherd.tokenizers.spec import TokenizerSpec, TokenType
from tests.train.objectives import tiny

END = 1
CHARACTERS = string.ascii_lowercase + string.digits + " .,-" + string.ascii_uppercase


def tiny_tokenizer() -> Tokenizer:
    tokens = ["<pad>", "<end>", *CHARACTERS.replace(" ", "Ġ")][: tiny.VOCAB]
    types = [TokenType.CONTROL, TokenType.CONTROL] + [TokenType.NORMAL] * (tiny.VOCAB - 2)
    return Tokenizer(TokenizerSpec("bpe", "gpt-2", tokens, types, eos_id=END, stop_ids=frozenset({END})))
