"""Before anything is written: what the new file will say, read back by the reader of its family."""

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
from openherd.checkpoints.json_keys import JsonKeys
from openherd.checkpoints.source import Checkpoint
from openherd.config import ModelConfig
from openherd.errors import UnsupportedError
from openherd.workshop.golden.rotation import rotation
from openherd.workshop.verify.facts import config_differences

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


def _present(checkpoint: Checkpoint) -> Present:
    layer = (name.removeprefix(_LAYER) for name in checkpoint.tensors if name.startswith(_LAYER))
    return Present(checkpoint.config.vocab_size, checkpoint.config.tied_embeddings, frozenset(layer))


def _require_same(was: ModelConfig, now: ModelConfig, where: str) -> None:
    differences = config_differences(asdict(was), rotation(was), now)
    if differences:
        raise UnsupportedError(f"{where} cannot say this model as openherd would write it: {differences[0]}")
