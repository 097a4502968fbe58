"""SentencePiece BPE (Kudo and Richardson 2018) from a file's pieces and scores, on the `tokenizers` package.

SentencePiece joins, again and again, the two neighbouring pieces whose union has the best score, the leftmost first
among equals. A merge list says the same: every way to cut a piece in two other pieces is a merge, ranked by the
score of the whole. Characters without a piece become bytes.

Not covered: of two cuts of one piece that overlap in the text ("a"+"aa" and "aa"+"a"), or of two pieces with equal
scores, a merge list must prefer one everywhere, where SentencePiece prefers the leftmost.
"""

from __future__ import annotations

import math
import re

from tokenizers import Tokenizer as Pipeline
from tokenizers.models import BPE

from openherd.errors import FormatError
from openherd.tokenizers.spec import TokenizerSpec, TokenType

_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")
_MAX_PIECE = 1024  # characters; a longer piece would make the search for its cuts the attacker's clock


def build(spec: TokenizerSpec) -> Pipeline:
    """Merges by score, with byte fallback. Control tokens are out of the merges' reach.

    Raises `FormatError` for a byte piece that is not `<0xXX>`, a score that is not a number, or an absurd piece.
    """
    _check(spec)
    vocab, pieces = _vocabulary(spec)
    unknown = spec.tokens[spec.unk_id] if spec.unk_id is not None else None
    if unknown is not None and spec.unk_id is not None:
        vocab.setdefault(unknown, spec.unk_id)
    model = BPE(vocab, _merges(pieces, spec), unk_token=unknown, fuse_unk=True, byte_fallback=True)
    return Pipeline(model)


def merges_of(spec: TokenizerSpec) -> list[tuple[str, str]]:
    """The merges that the spec stands for, best first: they and the vocabulary decide every id."""
    return _merges(_vocabulary(spec)[1], spec)


def _vocabulary(spec: TokenizerSpec) -> tuple[dict[str, int], dict[str, int]]:
    """(every piece that is not a control token, those of them that text may become by merging)."""
    vocab: dict[str, int] = {}
    pieces: dict[str, int] = {}
    for i, (token, kind) in enumerate(zip(spec.tokens, spec.token_types, strict=True)):
        if kind in (TokenType.CONTROL, TokenType.UNKNOWN):
            continue
        vocab[token] = i
        if kind != TokenType.BYTE:
            pieces[token] = i
    return vocab, pieces


def _merges(pieces: dict[str, int], spec: TokenizerSpec) -> list[tuple[str, str]]:
    """The file's own merges, or every cut of every piece in two pieces, best score of the whole first."""
    if spec.merges:
        given = (tuple(merge.split(" ", 1)) for merge in spec.merges)
        return [(a, b) for a, b in given if a in pieces and b in pieces and a + b in pieces]
    by_score = sorted(pieces, key=lambda piece: -spec.scores[pieces[piece]])
    return [
        (piece[:cut], piece[cut:])
        for piece in by_score
        for cut in range(1, len(piece))
        if piece[:cut] in pieces and piece[cut:] in pieces
    ]


def _check(spec: TokenizerSpec) -> None:
    for i, (token, kind) in enumerate(zip(spec.tokens, spec.token_types, strict=True)):
        if kind == TokenType.BYTE and not _BYTE.fullmatch(token):
            raise FormatError(f"token {i} is a byte token but is spelled {token[:32]!r}, not <0xXX>")
        if len(token) > _MAX_PIECE:
            raise FormatError(f"token {i} is {len(token)} characters long; the most is {_MAX_PIECE}")
    for merge in spec.merges:
        if merge.count(" ") != 1:
            raise FormatError(f"the merge {merge[:64]!r} is not two tokens with a space between them")
    for i, score in enumerate(spec.scores):
        if math.isnan(score):
            raise FormatError(f"the score of token {i} is not a number")
