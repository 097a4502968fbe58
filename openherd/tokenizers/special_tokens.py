"""Finding special tokens in text: which stretches are tokens of their own and which are left to merges.

A control token is recognised only where the text is trusted (the template's own words); a user-defined token is
recognised everywhere. Longer tokens are looked for first over the whole text, then shorter ones in what is left:
llama.cpp's order, which decides where two tokens overlap. SentencePiece has one sign for a space and for itself: there
a user-defined token with spaces is found by either.

What tokenizer.json calls normalised is sought after all others, in the normal text of the stretches that they leave,
and is normalised itself: where a normalizer prepends a space, "<a>" is found as "▁<a>" alone. Only user-defined tokens
are sought so. Control tokens are structure, which a template writes next to anything: files that call them normalised
(old conversions of Llama 2) would have most of theirs spelled out.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from openherd.tokenizers.normal_text import normal_text
from openherd.tokenizers.spec import Strip, TokenizerSpec, TokenType, ids_of_types

Range = tuple[int, int]  # start and end in characters
_NO_STRIP = Strip()
# Unicode's White_Space, as `tokenizers` strips it; Python would also take U+001C to U+001F.
_WHITESPACE = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
_Trust = Callable[[int, int], bool]


@dataclass(frozen=True, slots=True)
class _Special:
    text: str
    id: int
    needs_trust: bool
    strip: Strip


class SpecialTokens:
    """The control, unknown and user-defined tokens of a vocabulary, ready to cut text; or `normalized`: those that are
    sought in normal text."""

    def __init__(self, spec: TokenizerSpec, *, normalized: bool = False) -> None:
        special = ids_of_types(spec.token_types, TokenType.CONTROL, TokenType.UNKNOWN, TokenType.USER_DEFINED)
        found = []
        for i in special:
            text, needs_trust = spec.tokens[i], spec.token_types[i] != TokenType.USER_DEFINED
            if text and normalized == (i in spec.normalized and not needs_trust):
                text = normal_text(spec, text) if normalized else text
                found.append(_Special(text, i, needs_trust, spec.strips.get(i, _NO_STRIP)))
        self._longest_first = sorted(found, key=lambda s: len(s.text.encode()), reverse=True)
        self._folds_spaces = (
            not normalized
            and spec.kind == "spm"
            and spec.prefix_rule == "sentencepiece"
            and any(" " in special.text for special in found if not special.needs_trust)
        )

    def cut(self, text: str, trusted: Sequence[Range]) -> list[Range | int]:
        """Cut `text` into ranges of plain text and token ids; `trusted` are sorted ranges that do not touch."""
        starts = [start for start, _ in trusted]
        folded = text.replace("▁", " ") if self._folds_spaces else text

        def is_trusted(start: int, end: int) -> bool:
            i = bisect_right(starts, start) - 1
            return i >= 0 and end <= trusted[i][1]

        pieces: list[Range | int] = [(0, len(text))] if text else []
        for special in self._longest_first:
            within = text if special.needs_trust else folded
            if (special.needs_trust and not trusted) or special.text not in within:
                continue
            cut: list[Range | int] = []
            for piece in pieces:
                if isinstance(piece, int):
                    cut.append(piece)
                else:
                    cut.extend(_cut_out(within, piece, special, is_trusted))
            pieces = cut
        return pieces


def _cut_out(text: str, within: Range, special: _Special, is_trusted: _Trust) -> Iterator[Range | int]:
    start, end = within
    search = start
    while (at := text.find(special.text, search, end)) >= 0:
        after = at + len(special.text)
        if special.needs_trust and not is_trusted(at, after):
            search = at + 1
            continue
        before = start + len(text[start:at].rstrip(_WHITESPACE)) if special.strip.left else at
        if before > start:
            yield (start, before)
        yield special.id
        if special.strip.right:
            after = end - len(text[after:end].lstrip(_WHITESPACE))
        start = search = after
    if start < end:
        yield (start, end)
