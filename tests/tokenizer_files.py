"""tokenizer.model files put together from their pieces: SentencePiece's protocol buffer, and tiktoken's lines."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterable

Fields = Iterable[tuple[int, int | float | bytes]]


def varint(value: int) -> bytes:
    out = bytearray()
    value &= (1 << 64) - 1
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))


def message(fields: Fields) -> bytes:
    """A number is a varint, a float four bytes, bytes a string or a message."""
    out = b""
    for number, value in fields:
        if isinstance(value, bytes):
            out += varint(number << 3 | 2) + varint(len(value)) + value
        elif isinstance(value, float):
            out += varint(number << 3 | 5) + struct.pack("<f", value)
        else:
            out += varint(number << 3) + varint(value)
    return out


IDENTITY: Fields = ((1, b"identity"), (3, 1), (4, 0), (5, 1))
BPE: Fields = ((3, 2),)


def sentencepiece_file(
    pieces: Iterable[tuple[str, float, int]], trainer: Fields = BPE, normalizer: Fields = IDENTITY
) -> bytes:
    """(text, score, type) of each piece."""
    # Messages one after another: joining them at once keeps large vocabularies quick.
    parts = [message([(1, message([(1, text.encode()), (2, score), (3, kind)]))]) for text, score, kind in pieces]
    return b"".join(parts) + message([(2, message(trainer)), (3, message(normalizer))])


def tiktoken_file(tokens: Iterable[bytes]) -> bytes:
    return b"".join(base64.b64encode(token) + f" {rank}\n".encode() for rank, token in enumerate(tokens))


# The smallest sound vocabulary: unknown, begin, end, the bytes and a few pieces.
PIECES = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3), *((f"<0x{b:02X}>", 0.0, 6) for b in range(256)),
          ("ab", -1.0, 1), ("a", -2.0, 1), ("b", -3.0, 1), ("▁", -4.0, 1)]  # fmt: skip
