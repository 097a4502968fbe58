"""Rules of tokenizers that GGUF has no keys for, under keys of our own (`openherd.tokenizer.`).

Programs that do not know them read on: they tokenize such a file by GGUF's own rules, as they would any conversion.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast, get_args

import numpy as np
from numpy.typing import NDArray

from openherd.checkpoints.gguf_keys import Keys
from openherd.errors import FormatError
from openherd.tokenizers.spec import Normalizer, PrefixRule, Strip, TokenizerSpec

_P = "openherd.tokenizer."
PREFIX_RULE, NORMALIZER = _P + "prefix_rule", _P + "normalizer"
STRIP_LEFT, STRIP_RIGHT, STOP_IDS, MERGES = _P + "strip_left", _P + "strip_right", _P + "stop_ids", _P + "merges"
NORMALIZED = _P + "normalized"


def rule_keys(spec: TokenizerSpec) -> dict[str, str | NDArray[Any] | list[str]]:
    """What must be said beside GGUF's own keys."""
    keys: dict[str, str | NDArray[Any] | list[str]] = {}
    if spec.kind == "spm" and spec.prefix_rule != "sentencepiece":
        keys[PREFIX_RULE] = spec.prefix_rule
    if spec.kind == "spm" and spec.merges:
        keys[MERGES] = list(spec.merges)
    if spec.normalizer is not None:
        keys[NORMALIZER] = spec.normalizer
    for key, ids in (
        (STRIP_LEFT, [i for i, strip in spec.strips.items() if strip.left]),
        (STRIP_RIGHT, [i for i, strip in spec.strips.items() if strip.right]),
        (NORMALIZED, list(spec.normalized)),
        (STOP_IDS, list(spec.stop_ids)),
    ):
        if ids:
            keys[key] = np.array(sorted(ids), np.uint32)
    return keys


def with_rules(keys: Keys, spec: TokenizerSpec) -> TokenizerSpec:
    """The spec with the rules that the file states. Raises FormatError for a rule that is none."""
    if PREFIX_RULE in keys:
        spec = replace(spec, prefix_rule=cast(PrefixRule, _one_of(keys, PREFIX_RULE, get_args(PrefixRule))))
    if NORMALIZER in keys:
        spec = replace(spec, normalizer=cast(Normalizer, _one_of(keys, NORMALIZER, get_args(Normalizer))))
    if MERGES in keys and spec.kind == "spm":
        spec = replace(spec, merges=keys.strings(MERGES))
    left, right, stops = (_ids(keys, key, len(spec.tokens)) for key in (STRIP_LEFT, STRIP_RIGHT, STOP_IDS))
    if left or right:
        spec = replace(spec, strips={i: Strip(i in left, i in right) for i in sorted(left | right)})
    return replace(spec, normalized=_ids(keys, NORMALIZED, len(spec.tokens)), stop_ids=spec.stop_ids | stops)


def differs_elsewhere(spec: TokenizerSpec) -> str | None:
    """What a program that knows GGUF's keys alone does otherwise with such a tokenizer; None: nothing."""
    if spec.normalizer is not None:
        return f"llama.cpp does not normalise text ({spec.normalizer}) as this tokenizer does"
    if spec.normalized:
        return (
            "llama.cpp finds added tokens in text as it is written, where this tokenizer finds some in normalised text"
        )
    if spec.kind == "spm" and spec.add_space_prefix and spec.prefix_rule != "sentencepiece":
        return "llama.cpp puts a space after each control token, where this tokenizer does not"
    return None


def _one_of(keys: Keys, key: str, known: Mapping[str, object] | tuple[str, ...]) -> str:
    value = keys.text(key)
    if value not in known:
        raise keys.wrong(key, f"must be one of {', '.join(known)}")
    return value


def _ids(keys: Keys, key: str, vocab_size: int) -> frozenset[int]:
    if key not in keys:
        return frozenset()
    value = keys[key]
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "iu" or len(value) > vocab_size:
        raise keys.wrong(key, "must be an array of token ids")
    if len(value) and not 0 <= int(value.min()) <= int(value.max()) < vocab_size:
        raise FormatError(f"{keys.path}: {key} has an id outside the vocabulary of {vocab_size}")
    return frozenset(value.tolist())
