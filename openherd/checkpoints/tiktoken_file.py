"""tokenizer.model in tiktoken's form, which Meta's Llama 3 folders have: a line of base64 and a rank for each token.

Merges are not in the file; they follow from the ranks. A token is made of any two others that spell it, and the pair
whose whole has the lowest rank is joined first: every cut of every token is a merge, best rank first.

Source: tiktoken's `load_tiktoken_bpe` and `byte_pair_merge`. Not covered: of two cuts of one token that overlap in the
text, tiktoken joins the leftmost, a merge list the one that stands first.
"""

from __future__ import annotations

import base64
import binascii
from pathlib import Path

from openherd.checkpoints.mapped_file import map_file
from openherd.errors import FormatError
from openherd.tokenizers.byte_level import BYTE_OF

# Llama 3's has 128,000 lines in 2.2 MB.
MAX_BYTES = 16 << 20
MAX_TOKENS = 1 << 19
_MAX_TOKEN_BYTES = 256  # each of its cuts is looked up
_CHAR_OF = {byte: char for char, byte in BYTE_OF.items()}


def is_tiktoken(head: bytes) -> bool:
    """Whether a tokenizer.model that begins with `head` is in tiktoken's form rather than SentencePiece's.

    Its first line is base64, a space and a number; a SentencePiece model begins with bytes that no line has.
    """
    line = head.split(b"\n", 1)[0]
    token, _, rank = line.partition(b" ")
    return bool(token) and rank.strip().isdigit() and all(0x21 <= byte < 0x7F for byte in token)


def read_tiktoken_file(path: Path) -> tuple[list[str], list[str]]:
    """(tokens in GPT-2's printable alphabet by rank, merges best first). Raises FormatError or ModelNotFoundError."""
    tokens = _tokens(path)
    ranks = {token: rank for rank, token in enumerate(tokens)}
    missing = [byte for byte in range(256) if bytes((byte,)) not in ranks]
    if missing:
        raise FormatError(f"{path}: there is no token for the byte {missing[0]}")
    spelled = ["".join(_CHAR_OF[byte] for byte in token) for token in tokens]
    return spelled, [merge for token in tokens if len(token) > 1 for merge in _cuts(token, ranks, spelled)]


def _tokens(path: Path) -> list[bytes]:
    data = map_file(path)
    if len(data) > MAX_BYTES:
        raise FormatError(f"{path}: {len(data)} bytes are more than the limit of {MAX_BYTES}")
    tokens: list[bytes] = []
    for number, line in enumerate(data[:].split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            encoded, rank = line.split()
            token = base64.b64decode(encoded, validate=True)
            if int(rank) != len(tokens) or not 0 < len(token) <= _MAX_TOKEN_BYTES:
                raise ValueError
        except (ValueError, binascii.Error):
            raise FormatError(
                f"{path}: line {number} is not the base64 of a token and its rank, {len(tokens)}"
            ) from None
        if len(tokens) >= MAX_TOKENS:
            raise FormatError(f"{path} has more than {MAX_TOKENS} tokens")
        tokens.append(token)
    if len(set(tokens)) != len(tokens):
        raise FormatError(f"{path}: a token stands twice")
    return tokens


def _cuts(token: bytes, ranks: dict[bytes, int], spelled: list[str]) -> list[str]:
    """Merges that make `token`, lowest ranks first."""
    cuts = [
        (ranks[token[:at]], ranks[token[at:]])
        for at in range(1, len(token))
        if token[:at] in ranks and token[at:] in ranks
    ]
    return [f"{spelled[left]} {spelled[right]}" for left, right in sorted(cuts)]
