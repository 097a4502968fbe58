"""TokenizerSpec: what a model file carries about its tokenizer, before anything is built from it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Literal


class TokenType(IntEnum):
    """GGUF's `tokenizer.ggml.token_type`."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


def ids_of_types(token_types: Sequence[int], *types: TokenType) -> Iterator[int]:
    """Ids of the tokens of these types, ascending. Vocabularies are long and few tokens special: C searches."""
    return (found.start() for found in re.finditer(b"[" + re.escape(bytes(types)) + b"]", bytes(token_types)))


# Where `add_space_prefix` puts its space: before a text and after each special token; or (tokenizer.json's Metaspace)
# at the same places, or at the text's start alone, and only where no space is already.
PrefixRule = Literal["sentencepiece", "metaspace", "metaspace-first"]
Normalizer = Literal["NFC", "NFD", "NFKC", "NFKD"]


@dataclass(frozen=True, slots=True)
class Strip:
    """Whether a special token takes the whitespace before it, and after it, out of the text."""

    left: bool = False
    right: bool = False


@dataclass(frozen=True, slots=True)
class TokenizerSpec:
    """Vocabulary and rules. `bpe` is byte-level BPE with merges; `spm` is SentencePiece BPE with scores, or with the
    merges that a file made of them."""

    kind: Literal["bpe", "spm"]
    pre: str  # the pre-tokenizer as GGUF names it ("smollm", "llama-bpe", "gpt-2", ...); "" for spm
    tokens: Sequence[str]  # [V] byte-level BPE pieces are in GPT-2's printable alphabet
    token_types: Sequence[int]  # [V] TokenType values; a reader gives them as bytes
    merges: Sequence[str] = ()  # "left right", best first; spm: () to make them from the scores
    scores: Sequence[float] = ()  # spm: [V]
    bos_id: int | None = None
    eos_id: int | None = None
    eot_id: int | None = None  # end of turn
    eom_id: int | None = None  # end of message
    unk_id: int | None = None
    pad_id: int | None = None
    add_bos: bool = False
    add_eos: bool = False
    add_space_prefix: bool = True  # spm
    prefix_rule: PrefixRule = "sentencepiece"  # spm
    normalizer: Normalizer | None = None  # of plain text, before anything else
    strips: Mapping[int, Strip] = field(default_factory=dict)  # special tokens that take the spaces beside them
    normalized: frozenset[int] = frozenset()  # user-defined tokens that are sought, normalised too, in normal text
    stop_ids: frozenset[int] = frozenset()  # every id that ends an answer: eos, eot, eom and look-alikes by name
