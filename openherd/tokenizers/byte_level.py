"""Byte-level BPE (Radford et al. 2019, section 2.2) from a file's tokens and merges, on the `tokenizers` package."""

from __future__ import annotations

from collections.abc import Collection
from itertools import repeat

from tokenizers import Regex
from tokenizers import Tokenizer as Pipeline
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Split
from tokenizers.pre_tokenizers import Sequence as Steps

from openherd.errors import FormatError
from openherd.tokenizers.pretokenizers import pre_tokenizer
from openherd.tokenizers.spec import TokenizerSpec, TokenType, ids_of_types


def build(spec: TokenizerSpec) -> Pipeline:
    """Words by the spec's pre-tokenizer, then merges.

    Control and unknown tokens are left out of the vocabulary, so that no text whatever can merge into one. A byte
    that the file has no token for gets an id from V on, so that it keeps its neighbours apart: the caller drops it.
    Raises `UnsupportedError` for an unknown pre-tokenizer, `FormatError` for merges that are not pairs.
    """
    pre = pre_tokenizer(spec.pre)
    vocab = dict(zip(spec.tokens, range(len(spec.tokens)), strict=True))
    for token_id in ids_of_types(spec.token_types, TokenType.CONTROL, TokenType.UNKNOWN):
        vocab.pop(spec.tokens[token_id], None)
    missing = (char for char in BYTE_OF if char not in vocab)
    vocab |= {char: len(spec.tokens) + n for n, char in enumerate(missing)}
    pipeline = Pipeline(_model(vocab, list(spec.merges), ignore_merges=pre.ignore_merges))
    splits = [Split(Regex(pattern), behavior="isolated") for pattern in pre.patterns]
    pipeline.pre_tokenizer = Steps([*splits, ByteLevel(add_prefix_space=False, use_regex=False)])
    return pipeline


def _pairs(merges: list[str]) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = list(map(tuple, map(str.split, merges, repeat(" "))))  # type: ignore[arg-type]
    if set(map(len, pairs)) - {2}:
        wrong = next(merge for merge in merges if merge.count(" ") != 1)
        raise FormatError(f"the merge {wrong[:64]!r} is not two tokens with a space between them")
    return pairs


def _model(vocab: dict[str, int], merges: list[str], *, ignore_merges: bool) -> BPE:
    """Merges and vocabulary, without merges that touch a token left out of `vocab`: `tokenizers` refuses them all.

    It also panics on a merge that makes a token longer than the longest; looking for such is cheaper than looking up
    every token of every merge, which only files need that have merges of control tokens.
    """
    pairs, longest = _pairs(merges), _longest(merges) - len(" ")
    del merges  # `tokenizers` copies the pairs: what it does not need makes room
    if longest <= _longest(vocab):
        try:
            return BPE(vocab, pairs, ignore_merges=ignore_merges)
        except Exception:  # its only class: a token of a merge is not in the vocabulary
            pass
    known = [(a, b) for a, b in pairs if a + b in vocab and a in vocab and b in vocab]
    return BPE(vocab, known, ignore_merges=ignore_merges)


def _longest(texts: Collection[str]) -> int:
    """Bytes of the longest in UTF-8. Only texts of many characters can be it, as a character takes 1 to 4 bytes."""
    characters = max(map(len, texts), default=0)
    return max((len(text.encode()) for text in texts if 4 * len(text) >= characters), default=0)


def _alphabet() -> dict[str, int]:
    """GPT-2's printable alphabet: visible Latin-1 characters stand for themselves, other bytes for U+0100 onward."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in set(visible)]
    return {chr(byte): byte for byte in visible} | {chr(0x100 + n): byte for n, byte in enumerate(others)}


BYTE_OF = _alphabet()


def piece_bytes(piece: str) -> bytes:
    """The bytes a vocabulary piece stands for; a character outside the alphabet stands for its own UTF-8."""
    return b"".join(bytes((BYTE_OF[c],)) if c in BYTE_OF else c.encode() for c in piece)
