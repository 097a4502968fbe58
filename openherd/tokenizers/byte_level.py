"""Byte-level BPE (Radford et al. 2019, section 2.2) from a file's tokens and merges, on the `tokenizers` package."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Regex
from tokenizers import Tokenizer as Pipeline
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Split
from tokenizers.pre_tokenizers import Sequence as Steps

from openherd.errors import FormatError
from openherd.tokenizers.pretokenizers import pre_tokenizer
from openherd.tokenizers.spec import TokenizerSpec, TokenType


def build(spec: TokenizerSpec) -> Pipeline:
    """Words by the spec's pre-tokenizer, then merges.

    Control and unknown tokens are left out of the vocabulary, so that no text whatever can merge into one. A byte
    that the file has no token for gets an id from V on, so that it keeps its neighbours apart: the caller drops it.
    Raises `UnsupportedError` for an unknown pre-tokenizer, `FormatError` for merges that are not pairs.
    """
    pre = pre_tokenizer(spec.pre)
    vocab = dict(zip(spec.tokens, range(len(spec.tokens)), strict=True))
    for token, kind in zip(spec.tokens, spec.token_types, strict=True):
        if kind == TokenType.CONTROL or kind == TokenType.UNKNOWN:
            vocab.pop(token, None)
    missing = (char for char in BYTE_OF if char not in vocab)
    vocab |= {char: len(spec.tokens) + n for n, char in enumerate(missing)}
    model = BPE(vocab, _merges(spec.merges, vocab), ignore_merges=pre.ignore_merges)
    pipeline = Pipeline(model)
    splits = [Split(Regex(pattern), behavior="isolated") for pattern in pre.patterns]
    pipeline.pre_tokenizer = Steps([*splits, ByteLevel(add_prefix_space=False, use_regex=False)])
    return pipeline


def _merges(merges: Sequence[str], vocab: dict[str, int]) -> list[tuple[str, str]]:
    """Merges as pairs, without those that touch a token left out of `vocab`: `tokenizers` panics on them."""
    try:
        pairs = (merge.split(" ") for merge in merges)
        return [(a, b) for a, b in pairs if a + b in vocab and a in vocab and b in vocab]
    except ValueError as error:
        wrong = next(merge for merge in merges if merge.count(" ") != 1)
        raise FormatError(f"the merge {wrong[:64]!r} is not two tokens with a space between them") from error


def _alphabet() -> dict[str, int]:
    """GPT-2's printable alphabet: visible Latin-1 characters stand for themselves, other bytes for U+0100 onward."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in set(visible)]
    return {chr(byte): byte for byte in visible} | {chr(0x100 + n): byte for n, byte in enumerate(others)}


BYTE_OF = _alphabet()


def piece_bytes(piece: str) -> bytes:
    """The bytes a vocabulary piece stands for; a character outside the alphabet stands for its own UTF-8."""
    return b"".join(bytes((BYTE_OF[c],)) if c in BYTE_OF else c.encode() for c in piece)
