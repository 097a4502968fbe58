"""Text as merges see it: the normal form of Unicode, and SentencePiece's visible spaces."""

from __future__ import annotations

import unicodedata

from openherd.tokenizers.spec import TokenizerSpec, TokenType

SPACE = "▁"  # U+2581, SentencePiece's visible space


def normal_text(spec: TokenizerSpec, text: str, *, starts_text: bool = True) -> str:
    """What the spec's normalizer makes of `text`, with the space before it where it `starts_text`.

    Metaspace's spaces are no normalizer's: they come after it, see `with_metaspaces`.
    """
    if spec.normalizer:
        text = unicodedata.normalize(spec.normalizer, text)
    if spec.kind == "spm" and spec.prefix_rule == "sentencepiece":
        text = text.replace(" ", SPACE)
        if starts_text and spec.add_space_prefix:
            text = SPACE + text
    return text


def sought_in_normal_text(spec: TokenizerSpec) -> frozenset[int]:
    """Of `spec.normalized`, the tokens for which it decides something.

    Where normal text has signs for spaces and nothing else, a token without such a sign is found in both alike.
    """
    signs = spec.kind == "spm" and spec.prefix_rule == "sentencepiece"

    def decides(token_id: int) -> bool:
        if spec.token_types[token_id] != TokenType.USER_DEFINED:
            return False
        return spec.normalizer is not None or (signs and (spec.add_space_prefix or SPACE in spec.tokens[token_id]))

    return frozenset(filter(decides, spec.normalized))


def with_metaspaces(spec: TokenizerSpec, text: str, *, starts_text: bool) -> str:
    """Metaspace's visible spaces, one of them before a text that has none there; other specs' texts stay."""
    if spec.kind != "spm" or spec.prefix_rule == "sentencepiece":
        return text
    text = text.replace(" ", SPACE)
    return SPACE + text if starts_text and spec.add_space_prefix and not text.startswith(SPACE) else text
