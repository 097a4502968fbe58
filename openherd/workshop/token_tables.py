"""Two tokenizers' tables beside each other: where they differ first."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from openherd.tokenizers.spec import TokenizerSpec
from openherd.workshop.golden.vocabulary import merges


@dataclass(frozen=True, slots=True)
class TokenDifference:
    """What two tokenizers have under one id."""

    token_id: int
    texts: tuple[str, str]
    kinds: tuple[int, int]


def token_difference(
    a: TokenizerSpec, b: TokenizerSpec, kinds: Callable[[TokenizerSpec], Iterable[int]]
) -> TokenDifference | None:
    """The first token whose text or kind differs. They have equally many; `kinds` says what counts as a kind."""
    rows = zip(a.tokens, b.tokens, kinds(a), kinds(b), strict=True)
    for token_id, (text_a, text_b, kind_a, kind_b) in enumerate(rows):
        if text_a != text_b or kind_a != kind_b:
            return TokenDifference(token_id, (text_a, text_b), (kind_a, kind_b))
    return None


def same_merges(a: TokenizerSpec, b: TokenizerSpec) -> bool:
    return list(merges(a)) == list(merges(b))
