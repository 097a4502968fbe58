"""What a model takes by its config.json alone."""

from __future__ import annotations

import json
from typing import Any

import pytest

from openherd.store.fit import need_of_config

FALCON = {"model_type": "falcon", "num_hidden_layers": 32, "num_attention_heads": 71, "hidden_size": 4544}
ONE_HEAD = 2 * 32 * 64 * 2  # keys and values of 64 halves in each layer


@pytest.mark.parametrize(
    ("settings", "kv_heads"),
    [
        ({"multi_query": True, "num_kv_heads": 71}, 1),  # as Falcon 7B's says
        ({"num_kv_heads": 71}, 1),
        ({"multi_query": False, "num_kv_heads": 1}, 71),
        ({"new_decoder_architecture": True, "multi_query": True, "num_kv_heads": 8}, 8),
        ({"new_decoder_architecture": True}, 71),
    ],
)
def test_falcons_keys_and_values(settings: dict[str, Any], kv_heads: int) -> None:
    need = need_of_config(json.dumps(FALCON | settings).encode(), 1000)
    assert need.kv_per_token == kv_heads * ONE_HEAD


def test_other_families_have_as_many_as_they_say() -> None:
    plain = FALCON | {"model_type": "llama"}
    assert need_of_config(json.dumps(plain).encode(), 1000).kv_per_token == 71 * ONE_HEAD
    grouped = plain | {"num_key_value_heads": 2}
    assert need_of_config(json.dumps(grouped).encode(), 1000).kv_per_token == 2 * ONE_HEAD


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"model_type": "bert"}, "config.json has the model_type 'bert'; openherd runs 'llama'"),
        ({"model_type": None}, "config.json: the key model_type is missing"),
        (
            {"quantization_config": {"quant_method": "gptq", "bits": 4}},
            "config.json has a quantization_config (quant_me",
        ),
        ({"quantization_config": "gptq"}, "config.json: quantization_config must be an object"),
    ],
)
def test_what_config_json_alone_shows_to_be_unsupported(settings: dict[str, Any], reason: str) -> None:
    need = need_of_config(json.dumps(FALCON | settings).encode(), 1000)
    assert need.unsupported is not None
    assert need.unsupported.startswith(reason)
    assert need.kv_per_token  # what it takes is said to whoever forces it


def test_no_quantisation_is_supported() -> None:
    assert need_of_config(json.dumps(FALCON | {"quantization_config": None}).encode(), 1000).unsupported is None
