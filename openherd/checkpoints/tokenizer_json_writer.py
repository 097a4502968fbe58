"""A TokenizerSpec as tokenizer.json and tokenizer_config.json, in which transformers finds the same ids.

Source: the format of the `tokenizers` package. The pipeline is that of `tokenizers/byte_level.py` and
`tokenizers/sentencepiece.py`, with control tokens as added tokens.
"""

from __future__ import annotations

from typing import Any

from openherd.checkpoints.token_table import PAD
from openherd.tokenizers.pretokenizers import pre_tokenizer
from openherd.tokenizers.sentencepiece import merges_of
from openherd.tokenizers.spec import TokenizerSpec, TokenType, ids_of_types

_SPACE = "▁"
_SPECIAL = (TokenType.CONTROL, TokenType.UNKNOWN)


def tokenizer_json(spec: TokenizerSpec) -> dict[str, Any]:
    """The file's object. Raises UnsupportedError for a pre-tokenizer that is not known."""
    parts = _byte_level(spec) if spec.kind == "bpe" else _sentencepiece(spec)
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _added_tokens(spec),
        **parts,
    }


def tokenizer_config(spec: TokenizerSpec, max_seq_len: int) -> dict[str, Any]:
    """The settings beside it."""
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": max_seq_len,
        "add_bos_token": spec.add_bos,
        "add_eos_token": spec.add_eos,
    }
    for name, token in (
        ("bos_token", spec.bos_id),
        ("eos_token", spec.eos_id),
        ("unk_token", spec.unk_id),
        ("pad_token", spec.pad_id),
    ):
        if token is not None:
            settings[name] = spec.tokens[token]
    return settings


def _added_tokens(spec: TokenizerSpec) -> list[dict[str, Any]]:
    """Tokens that are found in text before anything else; SentencePiece's with spaces by its sign for them too."""
    normalizes = spec.kind == "spm" and spec.prefix_rule == "sentencepiece" and not spec.add_space_prefix

    def finds_spaces(token_id: int) -> bool:
        own = spec.token_types[token_id] == TokenType.USER_DEFINED
        return normalizes and own and " " in spec.tokens[token_id]

    return [
        {
            "id": token_id,
            "content": spec.tokens[token_id],
            "single_word": False,
            "lstrip": token_id in spec.strips and spec.strips[token_id].left,
            "rstrip": token_id in spec.strips and spec.strips[token_id].right,
            "normalized": token_id in spec.normalized or finds_spaces(token_id),
            "special": kind in _SPECIAL,
        }
        for token_id, kind in enumerate(spec.token_types)
        if kind in (*_SPECIAL, TokenType.USER_DEFINED) and spec.tokens[token_id]
    ]


def _byte_level(spec: TokenizerSpec) -> dict[str, Any]:
    pre = pre_tokenizer(spec.pre)
    splits = [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        for pattern in pre.patterns
    ]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {
        "normalizer": None if spec.normalizer is None else {"type": spec.normalizer},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*splits, level]},
        "post_processor": _template(spec) or level,
        "decoder": level,
        "model": _model(spec, [merge.split(" ") for merge in spec.merges], ignore_merges=pre.ignore_merges),
    }


def _sentencepiece(spec: TokenizerSpec) -> dict[str, Any]:
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
    normal: list[dict[str, Any]] = [] if spec.normalizer is None else [{"type": spec.normalizer}]
    pre: dict[str, Any] | None = None
    if spec.prefix_rule == "sentencepiece":
        prepend = [{"type": "Prepend", "prepend": _SPACE}] if spec.add_space_prefix else []
        steps = [*normal, *prepend, replace]
    else:
        scheme = "first" if spec.prefix_rule == "metaspace-first" else "always"
        pre = {
            "type": "Metaspace",
            "replacement": _SPACE,
            "prepend_scheme": scheme if spec.add_space_prefix else "never",
            "split": False,
        }
        steps = normal
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if spec.add_space_prefix else []
    back = {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "}
    return {
        "normalizer": {"type": "Sequence", "normalizers": steps} if steps else None,
        "pre_tokenizer": pre,
        "post_processor": _template(spec),
        "decoder": {"type": "Sequence", "decoders": [back, {"type": "ByteFallback"}, {"type": "Fuse"}, *strip]},
        "model": _model(spec, [list(pair) for pair in merges_of(spec)], ignore_merges=False),
    }


def _vocabulary(spec: TokenizerSpec, merges: list[list[str]]) -> dict[str, int]:
    """Without rows that no text reaches: a reader names these itself, and in the file they would be tokens."""
    unused = {PAD.format(i): i for i in ids_of_types(spec.token_types, TokenType.UNUSED)}
    for merge in merges if unused else ():
        unused.pop("".join(merge), None)  # which has to be there for the library to read the merge
    return {token: i for i, token in enumerate(spec.tokens) if token and unused.get(token) != i}


def _model(spec: TokenizerSpec, merges: list[list[str]], *, ignore_merges: bool) -> dict[str, Any]:
    spm = spec.kind == "spm"
    unknown = spec.tokens[spec.unk_id] if spm and spec.unk_id is not None else None
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": unknown,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": spm,
        "byte_fallback": spm,
        "ignore_merges": ignore_merges,
        "vocab": _vocabulary(spec, merges),
        "merges": merges,
    }


def _template(spec: TokenizerSpec) -> dict[str, Any] | None:
    """What is put before and after a text."""
    before = spec.tokens[spec.bos_id] if spec.add_bos and spec.bos_id is not None else None
    after = spec.tokens[spec.eos_id] if spec.add_eos and spec.eos_id is not None else None
    if before is None and after is None:
        return None

    def around(sequence: str, type_id: int) -> list[dict[str, Any]]:
        return [
            *([{"SpecialToken": {"id": before, "type_id": type_id}}] if before else []),
            {"Sequence": {"id": sequence, "type_id": type_id}},
            *([{"SpecialToken": {"id": after, "type_id": type_id}}] if after else []),
        ]

    ids = {before: spec.bos_id, after: spec.eos_id}
    return {
        "type": "TemplateProcessing",
        "single": around("A", 0),
        "pair": around("A", 0) + around("B", 1),
        "special_tokens": {t: {"id": t, "ids": [i], "tokens": [t]} for t, i in ids.items() if t is not None},
    }
