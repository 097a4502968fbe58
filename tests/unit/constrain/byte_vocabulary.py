"""A small vocabulary for constraint tests: every byte, some longer pieces, and two control tokens."""

from __future__ import annotations

PIECES = [
    b'{"',
    b'":',
    b'": "',
    b'",',
    b'"}',
    b"[{",
    b"}]",
    b"\n  ",
    b"true",
    b"false",
    b"null",
    "\u84dd".encode(),
    b"ab",
]


class ByteVocabulary:
    """Ids 0-255 are the bytes, then `PIECES`, then <s> and </s> (the end token)."""

    def __init__(self) -> None:
        self.tokens = [bytes([b]) for b in range(256)] + PIECES + [b"<s>", b"</s>"]
        self.vocab_size = len(self.tokens)
        self.bos_id = self.vocab_size - 2
        self.eos_id = self.vocab_size - 1
        self.stop_ids = frozenset({self.eos_id})

    def encode(self, text: str, *, special: bool = False, add_bos: bool | None = None) -> list[int]:
        return list(text.encode())

    def token_bytes(self, token_id: int) -> bytes:
        return self.tokens[token_id]

    def is_control(self, token_id: int) -> bool:
        return token_id >= self.bos_id

    def decode(self, ids: list[int]) -> str:
        return b"".join(self.tokens[i] for i in ids if i < self.bos_id).decode()
