"""A vocabulary while it is put together from several files: tokens by id, their types, and how they are sought."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from openherd.errors import FormatError
from openherd.tokenizers.spec import Strip, TokenType

# Rows of an embedding beyond the vocabulary, which no text reaches, are named as llama.cpp's converter names them.
PAD = "[PAD{}]"


@dataclass
class TokenTable:
    """Tokens by id. `where` begins every message."""

    where: str
    tokens: dict[int, str] = field(default_factory=dict)
    types: dict[int, TokenType] = field(default_factory=dict)
    strips: dict[int, Strip] = field(default_factory=dict)
    normalized: set[int] = field(default_factory=set)

    def add(self, token_id: int, text: str, kind: TokenType, strip: Strip | None = None) -> None:
        """Add a token, or say of one that is there what type it has. Raises FormatError when it has another text."""
        there = self.tokens.setdefault(token_id, text)
        if kind == TokenType.USER_DEFINED and there == text.replace("▁", " "):
            text = there  # SentencePiece's sign for a space, where its own file has been read
        if there != text:
            raise FormatError(f"{self.where}: token {token_id} is both {there[:40]!r} and {text[:40]!r}")
        self.types[token_id] = kind
        if strip is not None and (strip.left or strip.right):
            self.strips[token_id] = strip

    def mark_special(self, texts: Iterable[str]) -> None:
        """Make control tokens of those of the texts that are tokens."""
        wanted = set(texts)
        for token_id, text in self.tokens.items():
            if text in wanted and self.types[token_id] != TokenType.UNKNOWN:
                self.types[token_id] = TokenType.CONTROL

    def special(self) -> dict[str, int]:
        """Ids of control, unknown and user-defined tokens by their text."""
        kinds = (TokenType.CONTROL, TokenType.UNKNOWN, TokenType.USER_DEFINED)
        return {text: token_id for token_id, text in self.tokens.items() if self.types[token_id] in kinds}

    def id_of(self, text: str | None) -> int | None:
        """The id of a token by its text, special tokens first."""
        if text is None:
            return None
        special = self.special()
        if text in special:
            return special[text]
        return next((token_id for token_id, token in self.tokens.items() if token == text), None)

    def rows(self, vocab_size: int) -> tuple[list[str], bytes]:
        """(tokens, types) of all `vocab_size` rows of the embedding.

        Added tokens beyond it are left out, as no model can read them. Raises FormatError for others.
        """
        beyond = [i for i in self.tokens if i >= vocab_size]
        for token_id in beyond:
            if self.types[token_id] not in (TokenType.CONTROL, TokenType.USER_DEFINED):
                raise FormatError(
                    f"{self.where}: token {token_id} ({self.tokens[token_id][:40]!r}) is outside the embedding of "
                    f"{vocab_size} rows"
                )
            self.strips.pop(token_id, None)
        ids = range(vocab_size)
        tokens = [self.tokens.get(i) or PAD.format(i) for i in ids]
        types = bytes(self.types[i] if self.tokens.get(i) else TokenType.UNUSED for i in ids)
        return tokens, types
