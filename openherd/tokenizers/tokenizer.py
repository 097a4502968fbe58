"""Tokenizer: text and spans to ids, ids to bytes and text, as the model's file describes it.

Ids equal llama.cpp's on the same vocabulary in GGUF, and transformers' on the same tokenizer.json or tokenizer.model.
Not covered: the end-of-sequence token, which a trainer appends itself.
A vocabulary may lack tokens for some bytes (SmolLM2's does): what needs them is lost, as in llama.cpp.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence, Set
from dataclasses import replace
from typing import TYPE_CHECKING

from openherd.errors import ContextLengthError, FormatError
from openherd.messages import Origin, Span
from openherd.tokenizers.detokenizer import IncrementalDetokenizer
from openherd.tokenizers.normal_text import SPACE, normal_text, with_metaspaces
from openherd.tokenizers.spec import TokenizerSpec, TokenType
from openherd.tokenizers.special_tokens import Range, SpecialTokens

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Pipeline

_MAX_CHARS = 2**23  # the regular expressions of `tokenizers` panic after ten million steps on one run of spaces
_SURROGATE = re.compile("[\ud800-\udfff]")  # a str can hold half of a UTF-16 pair; UTF-8 cannot


class Tokenizer:
    """One vocabulary, either byte-level BPE or SentencePiece BPE. Safe to share between threads."""

    def __init__(self, spec: TokenizerSpec) -> None:
        """Raises `UnsupportedError` for an unknown pre-tokenizer, `FormatError` for a spec that contradicts itself."""
        _check(spec)
        spec = replace(spec, tokens=list(spec.tokens), token_types=token_kinds(spec))  # decoded once
        self.spec = spec
        self.vocab_size = len(spec.tokens)
        self.bos_id = spec.bos_id
        self.eos_id = spec.eos_id
        self.stop_ids = spec.stop_ids
        self.longest_token = max(1, *map(len, spec.tokens))
        """Characters of the longest token: no token covers more of a text than this."""
        self._special = SpecialTokens(spec)
        self._special_in_normal_text = SpecialTokens(spec, normalized=True)
        self._pipeline = _pipeline(spec)
        self._prefixes_after_special = spec.prefix_rule in ("sentencepiece", "metaspace")
        self._visible: dict[int, bytes] = {}  # what the tokens of answers so far show

    def encode(
        self, text: str, *, special: bool = False, add_bos: bool | None = None, max_tokens: int | None = None
    ) -> list[int]:
        """Ids of `text`.

        `special`: control tokens written in the text become control ids; else they are plain text and no control id
        can come out of it. `add_bos`: put the beginning-of-sequence id first (None: as the file says).
        `max_tokens`: refuse a text that cannot fit before working on it (`ContextLengthError`).
        """
        self._check_length(len(text), max_tokens)
        wanted = self.spec.add_bos if add_bos is None else add_bos
        ids = [self.bos_id] if wanted and self.bos_id is not None else []
        return ids + self._encode(text, [(0, len(text))] if special else [])

    def encode_spans(self, spans: Iterable[Span], *, max_tokens: int | None = None) -> list[int]:
        """Ids of a rendered conversation; control tokens count only where the template wrote them.

        Spans are joined first, so that ids are those of the whole text: a border between two origins is not a border
        between tokens. No beginning-of-sequence id is added: that is the template's to write.
        """
        texts: list[str] = []
        trusted: list[Range] = []
        length = 0
        for span in spans:
            end = length + len(span.text)
            if span.origin is Origin.TEMPLATE and end > length:
                if trusted and trusted[-1][1] == length:
                    trusted[-1] = (trusted[-1][0], end)
                else:
                    trusted.append((length, end))
            texts.append(span.text)
            length = end
        self._check_length(length, max_tokens)
        return self._encode("".join(texts), trusted)

    def decode(self, ids: Iterable[int], *, skip_special: bool = True, continues: bool = False) -> str:
        """Text of `ids`; bytes that are not UTF-8 become U+FFFD.

        `skip_special`: leave control tokens out. `continues`: the ids follow earlier text, so the space that
        SentencePiece puts before a text's first word is real and stays.
        """
        detokenizer = self.detokenizer(skip_special=skip_special, continues=continues)
        return "".join(map(detokenizer.add, ids)) + detokenizer.flush()

    def detokenizer(
        self, *, skip_special: bool = True, continues: bool = False, shown: Set[int] = frozenset()
    ) -> IncrementalDetokenizer:
        """A fresh incremental detokenizer; the arguments are those of `decode`, and `shown` are control tokens that
        are not left out."""
        strip = self.spec.kind == "spm" and self.spec.add_space_prefix and not continues
        if not skip_special:
            return IncrementalDetokenizer(self.token_bytes, strip_space=strip)
        if shown:
            return IncrementalDetokenizer(
                lambda token: self.token_bytes(token) if token in shown else self._visible_bytes(token),
                strip_space=strip,
            )
        return IncrementalDetokenizer(self._visible_bytes, strip_space=strip)

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes token `token_id` stands for. Raises IndexError outside the vocabulary."""
        if not 0 <= token_id < self.vocab_size:
            raise IndexError(f"token id {token_id} is outside the vocabulary of {self.vocab_size}")
        token, kind = self.spec.tokens[token_id], self.spec.token_types[token_id]
        is_special = kind in (TokenType.CONTROL, TokenType.UNKNOWN)
        if is_special or (kind == TokenType.USER_DEFINED and self.spec.kind == "bpe"):
            return token.encode()
        if self.spec.kind == "bpe":
            from openherd.tokenizers.byte_level import piece_bytes

            return piece_bytes(token)
        if kind == TokenType.BYTE:
            return bytes((int(token[3:5], 16),))
        return token.replace(SPACE, " ").encode()

    def control_ids(self, texts: Iterable[str]) -> dict[str, int]:
        """Ids of those of the texts that are control tokens."""
        wanted = set(texts)
        return {
            token: token_id
            for token_id, token in enumerate(self.spec.tokens)
            if token in wanted and self.is_control(token_id)
        }

    def is_control(self, token_id: int) -> bool:
        """Whether the id is a control token: structure, not text."""
        return self.spec.token_types[token_id] == TokenType.CONTROL

    def _visible_bytes(self, token_id: int) -> bytes:
        data = self._visible.get(token_id)
        if data is None:
            is_hidden = self.spec.token_types[token_id] in (TokenType.CONTROL, TokenType.UNKNOWN)
            data = self._visible[token_id] = b"" if is_hidden else self.token_bytes(token_id)
        return data

    def _check_length(self, length: int, max_tokens: int | None) -> None:
        if length > _MAX_CHARS:
            raise ContextLengthError(
                f"the text of {length} characters is too long: {_MAX_CHARS} are tokenized at once",
                hint="encode it in parts",
            )
        if max_tokens is not None and length > max_tokens * self.longest_token:
            least = -(-length // self.longest_token)
            raise ContextLengthError(
                f"the text of {length} characters is at least {least} tokens; {max_tokens} fit",
                hint="shorten the text, or raise --context",
            )

    def _encode(self, text: str, trusted: Sequence[Range]) -> list[int]:
        ids: list[int] = []
        starts_text = True  # SentencePiece puts a space before a text, and again after each special token
        for piece in self._special.cut(text, trusted):
            if isinstance(piece, int):
                ids.append(piece)
                starts_text = self._prefixes_after_special
            else:
                ids += self._encode_plain(text[slice(*piece)], starts_text)
                starts_text = False
        return ids

    def _encode_plain(self, text: str, starts_text: bool) -> list[int]:
        text = normal_text(self.spec, _SURROGATE.sub("\ufffd", text), starts_text=starts_text)
        ids: list[int] = []
        for piece in self._special_in_normal_text.cut(text, []):
            if isinstance(piece, int):
                ids.append(piece)
                starts_text = self._prefixes_after_special
            else:
                ids += self._merge(with_metaspaces(self.spec, text[slice(*piece)], starts_text=starts_text))
                starts_text = False
        return ids

    def _merge(self, text: str) -> list[int]:
        ids = self._pipeline.encode(text, add_special_tokens=False).ids
        return [token_id for token_id in ids if token_id < self.vocab_size]  # a byte without a token has a higher id


def _pipeline(spec: TokenizerSpec) -> Pipeline:
    if spec.kind == "bpe":
        from openherd.tokenizers import byte_level

        return byte_level.build(spec)
    from openherd.tokenizers import sentencepiece

    return sentencepiece.build(spec)


def token_kinds(spec: TokenizerSpec) -> bytes:
    """Token types, where what begins a text or ends an answer is a control token whatever the file calls it."""
    kinds = bytearray(spec.token_types)
    for token_id in (spec.bos_id, spec.eos_id, *spec.stop_ids):
        if token_id is not None:
            kinds[token_id] = TokenType.CONTROL
    return bytes(kinds)


def _check(spec: TokenizerSpec) -> None:
    n = len(spec.tokens)
    if not n:
        raise FormatError("the vocabulary is empty")
    if len(spec.token_types) != n:
        raise FormatError(f"the vocabulary has {n} tokens but {len(spec.token_types)} token types")
    if spec.kind == "spm" and not spec.merges and len(spec.scores) != n:
        raise FormatError(f"the vocabulary has {n} tokens but {len(spec.scores)} scores")
    for name in ("bos_id", "eos_id", "eot_id", "eom_id", "unk_id", "pad_id"):
        token_id = getattr(spec, name)
        if token_id is not None and not 0 <= token_id < n:
            raise FormatError(f"{name} is {token_id}, outside the vocabulary of {n} tokens")
    if any(not 0 <= token_id < n for token_id in spec.stop_ids):
        raise FormatError(f"a stop id is outside the vocabulary of {n} tokens")
