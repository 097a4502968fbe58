"""TokenizerSpec: what a model file carries about its tokenizer, before anything is built from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class TokenizerSpec:
    """Vocabulary and rules. `bpe` is byte-level BPE with merges; `spm` is SentencePiece BPE with scores."""

    kind: Literal["bpe", "spm"]
    pre: str  # the pre-tokenizer as GGUF names it ("smollm", "llama-bpe", "gpt-2", ...); "" for spm
    tokens: Sequence[str]  # [V] byte-level BPE pieces are in GPT-2's printable alphabet
    token_types: Sequence[int]  # [V] TokenType values
    merges: Sequence[str] = ()  # bpe: "left right", best first
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
    stop_ids: frozenset[int] = frozenset()  # every id that ends an answer: eos, eot, eom and look-alikes by name
