"""The pre-tokenizer of a tokenizer.json, as one of the table in `tokenizers.pretokenizers`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from openherd.errors import FormatError, UnsupportedError
from openherd.tokenizers.pretokenizers import GPT2_WORDS, PUNCTUATION, name_of

_MAX_STEPS = 16


def pre_tokenizer_name(path: Path, root: Mapping[str, Any], *, ignore_merges: bool) -> str:
    """The name in the table. Raises UnsupportedError for steps that no entry of the table has."""
    part = root.get("pre_tokenizer")
    steps = part.get("pretokenizers") if isinstance(part, dict) and part.get("type") == "Sequence" else [part]
    if not isinstance(steps, list) or len(steps) > _MAX_STEPS:
        raise FormatError(f"{path}: pre_tokenizer: a Sequence must be a list of at most {_MAX_STEPS} objects")
    patterns: list[str] = []
    byte_levels = 0
    for step in steps:
        if not isinstance(step, dict):
            raise UnsupportedError(f"{path}: the vocabulary is neither byte-level nor SentencePiece's")
        if step.get("type") == "ByteLevel":
            byte_levels += 1
        pattern = _pattern(step)
        if pattern is None:
            shown = repr(step)
            raise UnsupportedError(f"{path}: the pre-tokenizer {shown[:120]} is not one that openherd knows")
        patterns += [pattern] if pattern else []
    if byte_levels != 1:
        raise UnsupportedError(f"{path}: the vocabulary is neither byte-level nor SentencePiece's")
    name = name_of(tuple(patterns), ignore_merges=ignore_merges)
    if name is None:
        shown = " then ".join(patterns)
        raise UnsupportedError(
            f"{path}: openherd does not know the pre-tokenizer {shown[:200]!r}, and runs no expressions from files",
            hint="look for the same model as GGUF, whose header names its pre-tokenizer",
        )
    return name


def _pattern(step: Mapping[str, Any]) -> str | None:
    """The expression that isolates what the step isolates; "" for none, None for a step that is not known."""
    match step:
        case {"type": "ByteLevel"} if not step.get("add_prefix_space"):
            return GPT2_WORDS if step.get("use_regex", True) is True else ""
        case {"type": "Digits"}:
            return r"\p{N}" if step.get("individual_digits") is True else r"\p{N}+"
        case {"type": "Punctuation", "behavior": "Contiguous"}:
            return PUNCTUATION
        case {"type": "Split", "pattern": {"Regex": str(pattern)}, "behavior": behavior}:
            # Isolating the matches is the same as removing what lies between, where the matches leave nothing.
            isolates = behavior == "Isolated" and step.get("invert") is not True
            removes = behavior == "Removed" and step.get("invert") is True
            return pattern if isolates or removes else None
    return None
