"""The tokenizer of a Hugging Face folder: tokenizer.json or else tokenizer.model, with the settings of files beside it.

Files are laid over one another as transformers does: the vocabulary's own tokens, then added_tokens.json and
`added_tokens_decoder`, then the names of special tokens in tokenizer_config.json and special_tokens_map.json. What
begins and ends a text is what the settings say, else what the post-processor does.

Not covered: vocab.json with merges.txt alone, tokenizers in Python code (`auto_map`).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from openherd.checkpoints.end_tokens import END_OF_MESSAGE, end_of_turn, stop_ids
from openherd.checkpoints.json_keys import LARGE, JsonKeys, read_json_keys_if_there
from openherd.checkpoints.sentencepiece_model import read_sentencepiece_model
from openherd.checkpoints.token_table import TokenTable
from openherd.checkpoints.tokenizer_json import TokenizerJson, add_token, read_tokenizer_json
from openherd.errors import FormatError, UnsupportedError
from openherd.tokenizers.spec import TokenizerSpec, TokenType

JSON, MODEL = "tokenizer.json", "tokenizer.model"
SETTINGS, SPECIAL_TOKENS, ADDED_TOKENS = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"


@dataclass(frozen=True, slots=True)
class _Vocabulary:
    """A spec that lacks its rows, and what is known beside it."""

    spec: TokenizerSpec
    table: TokenTable
    scores: list[float]
    adds_bos: bool
    adds_eos: bool
    normalizes: bool  # whether tokens that are called normalised are sought otherwise than others


def read_hf_tokenizer(folder: Path, vocab_size: int, ends: tuple[int, ...]) -> tuple[TokenizerSpec, str]:
    """(the tokenizer of a model with `vocab_size` embeddings, the file it comes from).

    `ends` are ids that end an answer beside the tokenizer's own (config.json, generation_config.json). Raises
    FormatError, or UnsupportedError for a tokenizer that openherd does not build.
    """
    source = next((name for name in (JSON, MODEL) if os.path.lexists(folder / name)), None)
    if source is None:
        raise UnsupportedError(f"{folder} holds no tokenizer: neither {JSON} nor {MODEL}")
    settings = read_json_keys_if_there(folder / SETTINGS, limit=LARGE)
    names = _special_names(folder, settings)
    vocabulary = _from_json(folder / JSON) if source == JSON else _from_model(folder / MODEL, settings)
    _add_tokens(folder, settings, vocabulary.table)
    vocabulary.table.mark_special(name for name in names.values() if name != names.get("unk_token"))
    return _finished(vocabulary, settings, names, vocab_size, ends), source


def _from_json(path: Path) -> _Vocabulary:
    file = read_tokenizer_json(path)
    spec = TokenizerSpec(
        kind=file.kind,
        pre=file.pre,
        tokens=(),
        token_types=(),
        merges=file.merges,
        bos_id=file.table.id_of(file.first),
        eos_id=file.table.id_of(file.last),
        unk_id=file.table.id_of(file.unknown),
        add_space_prefix=file.add_space_prefix,
        prefix_rule=file.prefix_rule,
        normalizer=file.normalizer,
    )
    scores = [] if file.kind == "bpe" else _scores(file)
    return _Vocabulary(spec, file.table, scores, file.first is not None, file.last is not None, file.normalizes)


def _scores(file: TokenizerJson) -> list[float]:
    """A score for each token in the order of merges, for formats that have scores instead."""
    ranks = {merge.replace(" ", ""): rank for rank, merge in reversed(list(enumerate(file.merges)))}
    return [-float(ranks.get(file.table.tokens.get(i, ""), 0)) for i in range(max(file.table.tokens) + 1)]


def _from_model(path: Path, settings: JsonKeys) -> _Vocabulary:
    file = read_sentencepiece_model(path)
    spec = TokenizerSpec(
        kind="spm",
        pre="",
        tokens=(),
        token_types=(),
        bos_id=file.bos_id,
        eos_id=file.eos_id,
        unk_id=file.unk_id,
        pad_id=file.pad_id,
        add_space_prefix=settings.truth("add_prefix_space", file.add_space_prefix),
        # What transformers calls legacy is SentencePiece's way; without it only a text's start gets a space.
        prefix_rule="sentencepiece" if settings.truth("legacy", True) else "metaspace-first",
    )
    return _Vocabulary(spec, file.table, file.scores, adds_bos=True, adds_eos=False, normalizes=False)


def _add_tokens(folder: Path, settings: JsonKeys, table: TokenTable) -> None:
    where = str(folder / ADDED_TOKENS)
    for text, token_id in read_json_keys_if_there(folder / ADDED_TOKENS).items():
        if not isinstance(token_id, int) or table.tokens.get(token_id) != text:
            add_token(table, where, token_id, {"content": text})
    within = "added_tokens_decoder"
    for key, token in settings.section(within).items():
        number = key.removeprefix(f"{within}.")
        entry: Any = token
        if not number.isascii() or not number.isdigit() or len(number) > 9 or not isinstance(entry, dict):
            raise FormatError(f"{settings.path}: {within} must map ids to tokens")
        if int(number) not in table.tokens or table.types[int(number)] == TokenType.USER_DEFINED:
            add_token(table, str(settings.path), int(number), entry)


def _special_names(folder: Path, settings: JsonKeys) -> dict[str, str]:
    """Texts of special tokens by their roles; extra ones by a number."""
    names: dict[str, str] = {}
    for keys in (read_json_keys_if_there(folder / SPECIAL_TOKENS), settings):
        for role in ("bos_token", "eos_token", "unk_token", "pad_token"):
            if role in keys:
                names[role] = _token_text(keys, role, keys[role])
        for role in ("additional_special_tokens", "extra_special_tokens"):
            for i, token in enumerate(keys.listed(role)):
                names[f"{role} {i}"] = _token_text(keys, role, token)
    return names


def _token_text(keys: JsonKeys, role: str, token: Any) -> str:
    """A token is a string, or an object with its text."""
    text = token.get("content") if isinstance(token, dict) else token
    if not isinstance(text, str):
        raise keys.wrong(role, "must be a token")
    return text


def _finished(
    vocabulary: _Vocabulary, settings: JsonKeys, names: dict[str, str], vocab_size: int, ends: tuple[int, ...]
) -> TokenizerSpec:
    table, spec = vocabulary.table, vocabulary.spec
    tokens, types = table.rows(vocab_size)
    special = {text: i for text, i in table.special().items() if i < vocab_size}

    def role(name: str, default: int | None) -> int | None:
        token_id = table.id_of(names[name]) if name in names else default
        return token_id if token_id is not None and token_id < vocab_size else None

    eos_id = role("eos_token", spec.eos_id)
    eos_id = next((end for end in ends if end < vocab_size), None) if eos_id is None else eos_id
    eot_id, eom_id = end_of_turn(special), special.get(END_OF_MESSAGE)
    within = [end for end in ends if end < vocab_size]
    bos_id = role("bos_token", spec.bos_id)
    return replace(
        spec,
        tokens=tokens,
        token_types=types,
        scores=[*vocabulary.scores, *[0.0] * vocab_size][:vocab_size] if spec.kind == "spm" else (),
        bos_id=bos_id,
        eos_id=eos_id,
        eot_id=eot_id,
        eom_id=eom_id,
        unk_id=role("unk_token", spec.unk_id),
        pad_id=role("pad_token", spec.pad_id),
        add_bos=settings.truth("add_bos_token", vocabulary.adds_bos) and bos_id is not None,
        add_eos=settings.truth("add_eos_token", vocabulary.adds_eos),
        strips=table.strips,
        normalized=_normalized(table, vocab_size) if vocabulary.normalizes else frozenset(),
        stop_ids=stop_ids(special, eos_id, eot_id, eom_id, *within),
    )


def _normalized(table: TokenTable, vocab_size: int) -> frozenset[int]:
    """Tokens that are sought in normal text, of those that text may spell."""
    return frozenset(i for i in table.normalized if i < vocab_size and table.types[i] == TokenType.USER_DEFINED)
