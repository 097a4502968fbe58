"""Keys that config.json leaves out, or has null, mean what they mean in transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from openherd.checkpoints.families import Present, by_model_type
from openherd.checkpoints.json_keys import JsonKeys
from openherd.config import ModelConfig
from openherd.errors import FormatError

CASES: dict[str, dict[str, Any]] = {
    case["name"]: case for case in json.loads(Path(__file__).with_name("family_defaults.json").read_text())
}


def read(config: dict[str, Any]) -> ModelConfig:
    family = by_model_type(config["model_type"])
    assert family is not None
    return family.hf_config(JsonKeys(Path("config.json"), config), Present(config["vocab_size"], True, frozenset()))


def facts(config: ModelConfig, names: dict[str, Any]) -> dict[str, Any]:
    own: dict[str, Any] = {
        "original_max_seq_len": config.rope_scaling.original_max_seq_len,
        "windows": [config.window(layer) for layer in range(min(config.n_layers, 12))],
        "attention_scale": config.attention_scale or config.head_dim**-0.5,
    }
    return {name: own[name] if name in own else getattr(config, name) for name in names}


@pytest.mark.parametrize("name", CASES)
def test_keys_left_out(name: str) -> None:
    case = CASES[name]
    wanted = {key: value for key, value in case["facts"].items() if value is not None}
    assert facts(read(case["config"]), wanted) == wanted


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name]["null"]])
def test_keys_that_are_null(name: str) -> None:
    """Another thing than being left out; refused where transformers refuses it."""
    case = CASES[name]
    for key, changed in case["null"].items():
        config = case["config"] | {key: None}
        if changed is None:
            with pytest.raises(FormatError, match=f"{key} must not be null"):
                read(config)
        else:
            wanted = {k: v for k, v in (case["facts"] | changed).items() if v is not None}
            assert facts(read(config), wanted) == wanted, key
