"""Facts of a tokenizer: its rules, digests of its tables, and the ids of texts that tell tokenizers apart."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Sequence
from typing import Any

from openherd.tokenizers import Tokenizer, TokenizerSpec
from openherd.tokenizers.normal_text import sought_in_normal_text
from openherd.tokenizers.sentencepiece import merges_of
from openherd.workshop.golden.document import TokenizedText, Vocabulary

# Entries of a table under one digest: a vocabulary of 128,000 tokens and as many merges takes 32 kB.
RUN = 64
DIGITS = 8

_FACTS = (
    "kind", "pre", "bos_id", "eos_id", "eot_id", "eom_id", "unk_id", "pad_id", "add_bos", "add_eos", "add_space_prefix",
    "prefix_rule", "normalizer",
)  # fmt: skip
LATER_FACTS = ("normalized",)
"""Facts that golden values of earlier openherds do not hold."""

TEXTS = (
    "",
    " ",
    "Hello, world!",
    " leading and trailing spaces  ",
    "tabs\tand\nnew\r\nlines\n\n\n   after them",
    "It's what they'll've said: WE'RE here, I'M not.",
    "0 1 12 123 1234 12345 3.14159 1,000,000 2^10 0x7F",
    "naïve façade, Ærøskøbing, Straße, Ἀθῆναι, Москва, עברית, العربية, हिन्दी",
    "日本語の文章です。한국어 문장입니다. 中文句子。ไทย",
    "👩‍👩‍👧‍👦 🇫🇷 👍🏽 e\u0301 \u200b\ufeff\u00a0 ﬁ",
    "def f(x):\n    return {'a': [x ** 2, -x]}  # comment\n\n\tpass",
    "https://example.org/a?b=c&d=%20#e user@example.org C:\\temp",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa ...............!!!!!!",
    "<s></s><unk><pad><|endoftext|><|im_start|>user<|im_end|><|begin_of_text|><|eot_id|>[INST] [/INST]",
    "\x00\x01\x7f\x80\xff",
    "▁under▁scores Ġletters <0x0A>",
)
"""Spaces, case, digits, scripts, joined signs, code, runs, look-alikes of control tokens, and control characters."""


def vocabulary(tokenizer: Tokenizer, spec: TokenizerSpec) -> Vocabulary:
    """`spec` as the file has it; the tokenizer built from it."""
    texts = tuple(
        TokenizedText(text, tuple(tokenizer.encode(text)), tuple(tokenizer.encode(text, special=True)))
        for text in (*TEXTS, _spread(tokenizer))
    )
    return Vocabulary(facts(spec), digests(spec), texts)


def facts(spec: TokenizerSpec) -> dict[str, Any]:
    values = {name: getattr(spec, name) for name in _FACTS}
    strips = {str(i): [strip.left, strip.right] for i, strip in sorted(spec.strips.items())}
    return values | {
        "tokens": len(spec.tokens),
        "stop_ids": sorted(spec.stop_ids),
        "strips": strips,
        "normalized": sorted(sought_in_normal_text(spec)),
    }


def digests(spec: TokenizerSpec) -> dict[str, str]:
    return {
        "tokens": _digest(text.encode("utf-8", "surrogatepass") for text in spec.tokens),
        "token_types": _digest(bytes((int(kind),)) for kind in spec.token_types),
        "merges": _digest(text.encode("utf-8", "surrogatepass") for text in merges(spec)),
    }


def merges(spec: TokenizerSpec) -> Sequence[str]:
    """The merges, also of a file that has scores instead: layouts differ in that."""
    return [" ".join(pair) for pair in merges_of(spec)] if spec.kind == "spm" else spec.merges


def _digest(entries: Iterable[bytes]) -> str:
    """The first digits of the SHA-256 of each run of entries, each entry behind its length."""
    runs: list[str] = []
    digest, count = hashlib.sha256(), 0
    for entry in entries:
        digest.update(struct.pack("<I", len(entry)) + entry)
        count += 1
        if count % RUN == 0:
            runs.append(digest.hexdigest()[:DIGITS])
            digest = hashlib.sha256()
    return "".join([*runs, digest.hexdigest()[:DIGITS]] if count % RUN else runs)


def _spread(tokenizer: Tokenizer) -> str:
    """The texts of 128 tokens from all over the vocabulary, so that no part of it goes unused."""
    ids: Sequence[int] = range(0, tokenizer.vocab_size, max(1, tokenizer.vocab_size // 128))
    return tokenizer.decode(ids)[:2000]
