"""The bridge from a tokenizer to the constraint engine's trie of tokens."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from openherd.errors import UnsupportedError


class Vocabulary(Protocol):
    """What a constraint needs of a tokenizer."""

    @property
    def vocab_size(self) -> int: ...
    @property
    def stop_ids(self) -> Set[int]: ...
    def encode(self, text: str, *, special: bool = False, add_bos: bool | None = None) -> list[int]: ...
    def token_bytes(self, token_id: int, /) -> bytes: ...
    def is_control(self, token_id: int, /) -> bool: ...


@dataclass(slots=True)
class _TokenTable:
    """The attributes and the call that llguidance's TokenizerWrapper asks for."""

    tokens: Sequence[bytes]
    special_token_ids: Sequence[int]
    eos_token_id: int
    bos_token_id: int | None
    vocabulary: Vocabulary

    def __call__(self, text: str | bytes) -> list[int]:
        if isinstance(text, bytes):
            text = text.decode("utf-8", "replace")
        return self.vocabulary.encode(text, special=False, add_bos=False)


# The trie of 49,152 tokens takes 0.1 s to build, so it is built once for a tokenizer and a number of logits.
_TRIES: WeakKeyDictionary[Vocabulary, dict[int, Any]] = WeakKeyDictionary()


def token_trie(vocabulary: Vocabulary, n_logits: int) -> Any:
    """The LLTokenizer of a vocabulary for masks of `n_logits` bits; rows beyond the vocabulary are never allowed.

    Raises `UnsupportedError` when the model has no end token: nothing could end a constrained answer.
    """
    tries = _TRIES.setdefault(vocabulary, {})
    if n_logits not in tries:
        tries[n_logits] = _build(vocabulary, n_logits)
    return tries[n_logits]


def _build(vocabulary: Vocabulary, n_logits: int) -> Any:
    from llguidance import LLTokenizer, TokenizerWrapper

    stop_ids = sorted(vocabulary.stop_ids)
    if not stop_ids:
        raise UnsupportedError("this model has no end token, so an answer cannot be held to a grammar")
    ids = range(vocabulary.vocab_size)
    control = [token_id for token_id in ids if vocabulary.is_control(token_id)]
    table = _TokenTable(
        tokens=[vocabulary.token_bytes(token_id) for token_id in ids] + [b""] * (n_logits - vocabulary.vocab_size),
        special_token_ids=sorted({*control, *stop_ids}),
        eos_token_id=stop_ids[0],
        bos_token_id=None,
        vocabulary=vocabulary,
    )
    return LLTokenizer(TokenizerWrapper(table), n_vocab=n_logits, eos_token=stop_ids, slices=LLTokenizer.json_slices())
