"""Before any tensor is written: what the new file will say, read back by the readers of its layout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from openherd.checkpoints.families import Family, Present
from openherd.checkpoints.gguf import LONGROPE_FACTORS, ROPE_FACTORS
from openherd.checkpoints.gguf_keys import Keys
from openherd.checkpoints.gguf_writer import KeyValue
from openherd.checkpoints.hf_folder import end_ids
from openherd.checkpoints.hf_template import read_hf_template
from openherd.checkpoints.hf_tokenizer import read_hf_tokenizer
from openherd.checkpoints.json_keys import JsonKeys
from openherd.checkpoints.source import Checkpoint
from openherd.config import ModelConfig
from openherd.errors import HerdError, UnsupportedError
from openherd.tokenizers.spec import TokenizerSpec, TokenType
from openherd.workshop.golden.rotation import rotation
from openherd.workshop.golden.vocabulary import facts
from openherd.workshop.token_tables import same_merges, token_difference
from openherd.workshop.verify.facts import config_differences, same_fact
from openherd.workshop.verify.findings import shown

_LAYER = "model.layers.0."


def require_same_from_gguf(
    checkpoint: Checkpoint, family: Family, keys: Mapping[str, KeyValue], divisors: Mapping[str, Any], out: Path
) -> None:
    """Raises UnsupportedError when GGUF's keys do not say all of the config."""
    plain = {key: np.float32(v).item() if isinstance(v, float) else v for key, v in keys.items() if "." in key}
    config = family.gguf_config(Keys(out, plain), _present(checkpoint))  # type: ignore[arg-type]
    listed = {name: tuple(float(value) for value in values) for name, values in divisors.items()}
    if ROPE_FACTORS in listed:
        config = replace(config, rope_factors=listed[ROPE_FACTORS])
    if LONGROPE_FACTORS[0] in listed:
        short, long = (listed[name] for name in LONGROPE_FACTORS)
        config = replace(config, rope_scaling=replace(config.rope_scaling, short_factors=short, long_factors=long))
    _require_same(checkpoint.config, config, "GGUF")


def require_same_from_hf(checkpoint: Checkpoint, family: Family, settings: Mapping[str, Any], out: Path) -> None:
    """Raises UnsupportedError when config.json does not say all of the config."""
    config = family.hf_config(JsonKeys(out / "config.json", settings), _present(checkpoint))
    _require_same(checkpoint.config, config, "config.json")


def require_same_tokenizer(checkpoint: Checkpoint, folder: Path, config: JsonKeys) -> None:
    """Raises UnsupportedError when the files in `folder` do not say all of the tokenizer and the template."""
    spec = checkpoint.tokenizer
    try:
        now, _ = read_hf_tokenizer(folder, len(spec.tokens), end_ids(folder, config))
        template, _ = read_hf_template(folder)
    except HerdError as error:
        raise UnsupportedError(f"what openherd would write could not be read again: {error}") from None
    difference = _tokenizer_difference(spec, now)
    if difference is not None:
        raise UnsupportedError(f"tokenizer.json cannot say this tokenizer as openherd would write it: {difference}")
    if template != checkpoint.chat_template:
        raise UnsupportedError("a Hugging Face folder cannot say this chat template as openherd would write it")


def _tokenizer_difference(was: TokenizerSpec, now: TokenizerSpec) -> str | None:
    """The first of what `herd verify` would find."""
    if token := token_difference(was, now, lambda spec: spec.token_types):
        old, new = (f"{shown(t)} {TokenType(k).name}" for t, k in zip(token.texts, token.kinds, strict=True))
        return f"token {token.token_id} is {old} and would be {new}"
    then = facts(was)
    for name, value in facts(now).items():
        if not same_fact(name, then[name], value):
            return f"{name} is {shown(then[name])} and would be {shown(value)}"
    return None if same_merges(was, now) else "the merges would be others"


def _present(checkpoint: Checkpoint) -> Present:
    layer = (name.removeprefix(_LAYER) for name in checkpoint.tensors if name.startswith(_LAYER))
    return Present(checkpoint.config.vocab_size, checkpoint.config.tied_embeddings, frozenset(layer))


def _require_same(was: ModelConfig, now: ModelConfig, where: str) -> None:
    differences = config_differences(asdict(was), rotation(was), now)
    if differences:
        raise UnsupportedError(f"{where} cannot say this model as openherd would write it: {differences[0]}")
