"""Keys of every family's files: nonsense is a typed error, and what could change an answer is never ignored."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from openherd.checkpoints.families import FAMILIES, Family, Present, by_architecture, by_model_type, by_name
from openherd.checkpoints.families.gguf_config import window_of
from openherd.checkpoints.gguf_keys import Keys
from openherd.checkpoints.json_keys import JsonKeys
from openherd.checkpoints.required_tensors import required_tensors
from openherd.config import ModelConfig
from openherd.errors import FormatError, UnsupportedError
from openherd.kernels.alibi import alibi_slopes
from openherd.kernels.rope import for_context, inverse_frequencies
from tests.parity.family_cases import families

CASES = families()
PATH = Path("config.json")
PRESENT = Present(97, True, frozenset())
NONSENSE: list[Any] = [
    -1,
    0,
    1,
    3,
    2**31,
    10**30,
    0.5,
    -0.5,
    float("nan"),
    float("inf"),
    True,
    "",
    "x",
    [],
    [1],
    {},
    None,
]


def hf(config: dict[str, Any]) -> ModelConfig:
    family = by_model_type(config["model_type"])
    assert family is not None
    return family.hf_config(JsonKeys(PATH, config), PRESENT)


def paths(config: Any, at: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in config.items():
        yield (*at, key)
        if isinstance(value, dict):
            yield from paths(value, (*at, key))


def changed(config: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    config = copy.deepcopy(config)
    inner = config
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return config


@pytest.mark.parametrize("name", CASES)
def test_nonsense_in_config_json_is_a_typed_error(name: str) -> None:
    """What is read stays within bounds that the engine can use: tensors can be listed, frequencies computed."""
    config = CASES[name]["config"]
    for path in paths(config):
        if path == ("model_type",):
            continue
        for value in NONSENSE:
            with contextlib.suppress(FormatError, UnsupportedError):
                _use(hf(changed(config, path, value)))


def _use(config: ModelConfig) -> None:
    assert next(required_tensors(config))[1] == (97, config.dim)
    assert config.n_heads % config.n_kv_heads == 0
    assert min(config.sliding_window, config.full_attention_every, config.no_rope_every, config.n_experts) >= 0
    if config.n_heads < 10_000 and config.alibi_max_bias:
        assert np.isfinite(alibi_slopes(config)).all()
    if config.head_dim < 10_000 and not config.alibi_max_bias:
        inverse_frequencies(for_context(config, 64))


@pytest.mark.parametrize("name", CASES)
def test_unknown_keys_are_refused(name: str) -> None:
    config = CASES[name]["config"]
    hf(config)
    for path in [("shrink_heads",), *((*path, "surprise") for path in paths(config) if _is_section(config, path))]:
        with pytest.raises(UnsupportedError, match=r"does not know the key"):
            hf(changed(config, path, 1))


def _is_section(config: dict[str, Any], path: tuple[str, ...]) -> bool:
    value: Any = config
    for key in path:
        value = value[key]
    return isinstance(value, dict) and bool(value) and path[-1] not in ("id2label", "label2id")


REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "another activation": ("llama31", {"hidden_act": "gelu"}),
    "falcon with another activation": ("falcon_7b", {"activation": "relu"}),
    "gemma with silu": ("gemma2", {"hidden_activation": "silu"}),
    "attention to both sides": ("gemma3", {"use_bidirectional_attention": True}),
    "post-layernorm residual": ("falcon_7b", {"apply_residual_connection_post_layernorm": True}),
    "mpt with positions learned": ("mpt_7b", {"attn_config": {"alibi": False}}),
    "mpt with norms of queries": ("mpt_7b", {"attn_config": {"qk_ln": True}}),
    "mpt with biases": ("mpt_7b", {"no_bias": False}),
    "windows in late layers alone": (
        "qwen2",
        {"use_sliding_window": True, "max_window_layers": 1, "layer_types": None},
    ),
    "windows by no period": (
        "qwen3",
        {"use_sliding_window": True, "sliding_window": 8, "layer_types": ["full_attention", "sliding_attention"]},
    ),
    "smollm3 with a window": ("smollm3", {"use_sliding_window": True}),
    "rotation by no period": ("smollm3", {"no_rope_layers": [0, 0, 1, 1, 1]}),
    "another rope scaling": ("phi3", {"rope_parameters": {"rope_type": "spiral", "rope_theta": 1e4}}),
    "phi3 with a scaling it does not have": ("phi3", {"rope_parameters": {"rope_type": "linear", "factor": 2.0}}),
    "layers of mistral that differ": ("mistral", {"layer_types": ["sliding_attention", "full_attention"]}),
    "mixtral with a switch for windows": ("mixtral", {"use_sliding_window": False}),
    "gemma2 with gemma3's pattern": ("gemma2", {"sliding_window_pattern": 3}),
    "gemma2 with gemma3's local base": ("gemma2", {"rope_local_base_freq": 10000.0}),
    **{
        f"{name} rotated by layer": (name, {"rope_parameters": {"full_attention": {}, "sliding_attention": {}}})
        for name in CASES
        if name not in ("gemma3", "mpt_7b", "mpt_30b")
    },
    "quantised by another tool": ("mixtral", {"quantization_config": {"bits": 4}}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_supported_is_said(name: str) -> None:
    case, changes = REFUSED[name]
    with pytest.raises(UnsupportedError, match=r"config.json"):
        hf(CASES[case]["config"] | changes)


def test_contradictions_are_refused() -> None:
    """Windows by layer without a window, and one rotation where Gemma 3 has two: transformers has neither."""
    with pytest.raises(FormatError, match="use_sliding_window is not true"):
        hf(CASES["qwen3"]["config"] | {"use_sliding_window": False, "layer_types": ["sliding_attention"] * 2})
    with pytest.raises(FormatError, match="must have full_attention and sliding_attention"):
        hf(CASES["gemma3"]["config"] | {"rope_parameters": {"rope_type": "default"}})


GGUF_KEYS: dict[str, Any] = {
    "context_length": 256,
    "embedding_length": 48,
    "block_count": 2,
    "feed_forward_length": 192,
    "attention.head_count": 6,
    "attention.layer_norm_rms_epsilon": 1e-5,
    "attention.layer_norm_epsilon": 1e-5,
    "attention.max_alibi_bias": 0.0,
}


def gguf(family: Family, **changes: Any) -> ModelConfig:
    keys = GGUF_KEYS | ({"attention.max_alibi_bias": 8.0} if family.name == "mpt" else {}) | changes
    prefixed = {f"{family.architecture}.{key}": value for key, value in keys.items()}
    return family.gguf_config(Keys(Path("x.gguf"), prefixed), PRESENT)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_nonsense_in_gguf_is_a_typed_error(family: Family) -> None:
    assert gguf(family).family == family.name
    own = [
        "attention.sliding_window", "attention.sliding_window_pattern", "attn_logit_softcapping", "expert_count",
        "expert_used_count", "attention.clamp_kqv", "rope.dimension_count", "rope.freq_base_swa", "attention.scale",
        "rope.scaling.attn_factor", "rope.scaling.original_context_length", "tensor_data_layout",
    ]  # fmt: skip
    for key in [*GGUF_KEYS, *own]:
        for value in [*NONSENSE[:-1], np.zeros(2, np.int32), np.ones(3, bool)]:
            if isinstance(value, list | dict):
                continue  # no file has these
            with contextlib.suppress(FormatError, UnsupportedError):
                _use(gguf(family, **{key: value}))


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_unknown_gguf_keys_are_refused(family: Family) -> None:
    with pytest.raises(UnsupportedError, match="does not know the key"):
        gguf(family, shrink_heads=1)


def test_gemma2_in_gguf_has_the_windows_of_llama_cpp() -> None:
    """4096 where the file is silent; layers with a window have their own base where it gives one."""
    family = by_name("gemma2")
    silent = gguf(family)
    assert (silent.sliding_window, silent.full_attention_every, silent.local_rope_theta) == (4096, 2, 0.0)
    assert gguf(family, **{"attention.sliding_window": 8}).sliding_window == 8
    with pytest.raises(FormatError, match="sliding_window must be a whole number from 1"):
        gguf(family, **{"attention.sliding_window": 0})
    base = {"rope.freq_base_swa": 5000.0}
    assert gguf(family, **base).local_rope_theta == 5000.0
    assert gguf(family, **{"rope.freq_base_swa": 10000.0}) == silent
    with pytest.raises(UnsupportedError, match="freq_base_swa beside a rope scaling"):
        gguf(family, **base, **{"rope.scaling.type": "linear", "rope.scaling.factor": 2.0})
    assert gguf(by_name("gemma3")).sliding_window == 0  # as it has them too


def test_every_family_is_found_by_its_names() -> None:
    for family in FAMILIES:
        assert by_architecture(family.architecture) is family
        assert all(by_model_type(name) is family for name in family.model_types)
    assert by_architecture("gemma") is None
    assert by_model_type("gemma") is None


@pytest.mark.parametrize(
    ("slides", "expected"),
    [
        ([True, False, True, False], (8, 2)),
        ([True, True, False, True], (8, 3)),
        ([True, True], (8, 0)),
        ([False, False], (0, 0)),
        ([False, True], None),
        ([True, False, False], None),
    ],
)
def test_windows_come_in_periods(slides: list[bool], expected: tuple[int, int] | None) -> None:
    refusal: Callable[[], Exception] = lambda: UnsupportedError("no period")  # noqa: E731
    if expected is None:
        with pytest.raises(UnsupportedError):
            window_of(8, slides, refusal)
        return
    window, every = window_of(8, slides, refusal)
    config = ModelConfig("llama", 8, len(slides), 1, 1, 8, 8, 8, 64, sliding_window=window, full_attention_every=every)
    assert [bool(config.window(layer)) for layer in range(len(slides))] == slides
