"""Hugging Face folders: shards that agree with their index, settings that change nothing, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from openherd.checkpoints import open_checkpoint
from openherd.checkpoints.describe import describe
from openherd.config import RopeScaling
from openherd.errors import FormatError, HerdError, ModelNotFoundError, UnsupportedError
from tests.checkpoint_files import safetensors_of
from tests.parity.reader_cases import FOLDER

INDEX = "model.safetensors.index.json"
SHARDS = [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FOLDER / "llama3-hf", tmp_path / "model"))


def edit(path: Path, **changes: Any) -> None:
    """Set keys of a JSON file; None takes one out."""
    values = json.loads(path.read_text()) if path.exists() else {}
    values |= changes
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not None}))


def edit_index(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    index = json.loads((folder / INDEX).read_text())
    change(index["weight_map"])
    (folder / INDEX).write_text(json.dumps(index))


def test_what_a_folder_says(folder: Path) -> None:
    checkpoint = open_checkpoint(folder)
    assert checkpoint.license == "apache-2.0"
    assert checkpoint.template_source == "chat_template.jinja"
    assert checkpoint.files == tuple(folder / shard for shard in SHARDS)
    spec = checkpoint.tokenizer
    assert (spec.kind, spec.pre, spec.add_bos, spec.bos_id, spec.eos_id) == ("bpe", "llama-bpe", True, 389, 398)
    assert spec.stop_ids == {390, 397, 398}  # of generation_config.json, and by name
    facts = describe(folder)
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts
    assert facts["chat_template"]["source"] == "chat_template.jinja"
    assert facts["tokenizer"] == {"model": "bpe", "pre": "llama-bpe", "vocab_size": 400, "source": "tokenizer.json"}
    assert facts["parameters"] == 19024


def test_old_settings_give_the_same_config(folder: Path) -> None:
    """transformers 4 wrote rope_theta and rope_scaling, with `type` for `rope_type` before that."""
    new = open_checkpoint(folder).config
    rope = json.loads((folder / "config.json").read_text())["rope_parameters"]
    theta = rope.pop("rope_theta")
    edit(folder / "config.json", rope_parameters=None, rope_theta=theta, rope_scaling=rope)
    assert open_checkpoint(folder).config == new
    rope["type"] = rope.pop("rope_type")
    edit(folder / "config.json", rope_scaling=rope)
    assert open_checkpoint(folder).config == new
    edit(folder / "config.json", rope_scaling=rope | {"rope_type": "llama3"})
    assert open_checkpoint(folder).config == new


@pytest.mark.parametrize(
    ("rope", "expected"),
    [
        (None, RopeScaling()),
        ({"rope_type": "default"}, RopeScaling()),
        ({"type": "linear", "factor": 4}, RopeScaling("linear", factor=4.0)),
        ({"type": "dynamic", "factor": 4}, RopeScaling()),  # transformers leaves the trained context alone
        (
            {"type": "yarn", "factor": 4, "original_max_position_embeddings": 32, "beta_fast": 16},
            RopeScaling("yarn", factor=4.0, original_max_seq_len=32, beta_fast=16.0),
        ),
    ],
)
def test_rope_scaling(folder: Path, rope: object, expected: RopeScaling) -> None:
    edit(folder / "config.json", rope_parameters=None, rope_theta=10000.0, rope_scaling=rope)
    assert open_checkpoint(folder).config.rope_scaling == expected


REFUSED_CONFIGS: dict[str, tuple[dict[str, Any], type[HerdError], str]] = {
    "no model_type": ({"model_type": None}, FormatError, "the key model_type is missing"),
    "another": ({"model_type": "bert"}, UnsupportedError, "model_type 'bert'; openherd runs 'llama'"),
    "unknown key": ({"new_trick": 1}, UnsupportedError, "does not know the key new_trick"),
    "quantised": ({"quantization_config": {"bits": 4}}, UnsupportedError, "openherd supports models without it"),
    "window": ({"sliding_window": 4096}, UnsupportedError, "sliding_window is 4096"),
    "activation": ({"hidden_act": "gelu"}, UnsupportedError, "hidden_act is 'gelu'; openherd supports only 'silu' or"),
    "longrope": ({"rope_parameters": {"rope_type": "longrope"}}, FormatError, "short_factor must be a list of numbers"),
    "huge": (
        {"rope_parameters": {"rope_type": "longrope", "short_factor": [10**400]}},
        FormatError,
        "short_factor must be a list of numbers",
    ),
    "heads in part": (
        {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}},
        UnsupportedError,
        "partial_rotary_factor is not 1",
    ),
    "rope key": ({"rope_parameters": {"rope_type": "default", "x": 1}}, UnsupportedError, "the key rope_parameters.x"),
    "rope a list": ({"rope_parameters": [1]}, FormatError, "rope_parameters must be an object"),
    "two ropes": ({"rope_scaling": {"type": "linear", "factor": 2}}, FormatError, "must not stand beside"),
    "factor 0": ({"rope_parameters": {"rope_type": "linear", "factor": 0}}, FormatError, "factor must be greater than"),
    "no factor": ({"rope_parameters": {"rope_type": "linear"}}, FormatError, "rope_parameters.factor is missing"),
    "theta text": ({"rope_parameters": {"rope_theta": "x"}}, FormatError, "rope_theta must be a finite number"),
    "heads": ({"num_attention_heads": 3}, FormatError, "num_key_value_heads must divide the 3|must divide"),
    "layers": ({"num_hidden_layers": 3}, FormatError, r"tensor model\.layers\.2\.\S+ is missing"),
    "fewer layers": ({"num_hidden_layers": 1}, UnsupportedError, r"model\.layers\.1\.\S+ is not part of this family"),
    "2^31 layers": ({"num_hidden_layers": 2**31}, FormatError, "must be a whole number from 1 to"),
    "a float": ({"hidden_size": 16.0}, FormatError, "hidden_size must be a whole number"),
    "vocabulary": ({"vocab_size": 401}, FormatError, "number of rows, 400, not 401"),
    "biases": ({"attention_bias": True}, FormatError, r"q_proj\.bias is missing"),
    "width": ({"intermediate_size": 49}, FormatError, r"mlp\.gate_proj\.weight has shape \(48, 16\)"),
    "odd head": ({"head_dim": 5}, FormatError, "must be even"),
    "eps 0": ({"rms_norm_eps": 0}, FormatError, "rms_norm_eps must be greater than 0"),
    "tied": ({"tie_word_embeddings": "yes"}, FormatError, "must be a truth value"),
    "eos": ({"eos_token_id": [1, "x"]}, FormatError, "eos_token_id must be a whole number from 0"),
}


@pytest.mark.parametrize("case", REFUSED_CONFIGS)
def test_refused_configs(case: str, folder: Path) -> None:
    changes, error, message = REFUSED_CONFIGS[case]
    edit(folder / "config.json", **changes)
    with pytest.raises(error, match=message):
        open_checkpoint(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"sliding_window": 4096}, "sliding_window is 4096"), ({"model_type": "bert"}, "'bert'; open")],
)
def test_inspect_says_why_a_model_cannot_be_run(folder: Path, change: dict[str, Any], message: str) -> None:
    edit(folder / "config.json", **change)
    facts = describe(folder)
    assert message in facts["unsupported"]
    assert facts["config"] is None
    assert facts["parameters"] == 19024


def test_a_tied_model_may_hold_the_output_twice(folder: Path) -> None:
    edit(folder / "config.json", tie_word_embeddings=True)
    assert "lm_head.weight" not in open_checkpoint(folder).tensors


REFUSED_INDEXES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "a path": (lambda m: m.update({"model.norm.weight": "../model-00001-of-00003.safetensors"}), "not the name of a"),
    "an absolute path": (lambda m: m.update({"model.norm.weight": "/etc/x.safetensors"}), "is not the name of a"),
    "a drive": (lambda m: m.update({"model.norm.weight": "C:x.safetensors"}), "is not the name of a"),
    "NUL": (lambda m: m.update({"model.norm.weight": "a\0.safetensors"}), "is not the name of a"),
    "a pickle": (lambda m: m.update({"model.norm.weight": "x.bin"}), "is not the name of a .safetensors file"),
    "the folder": (lambda m: m.update({"model.norm.weight": ".."}), "is not the name of a"),
    "a number": (lambda m: m.update({"model.norm.weight": 3}), "must map names of tensors to names of files"),
    "a tensor that is nowhere": (lambda m: m.update({"x": SHARDS[0]}), f"{SHARDS[0]} does not hold x"),
    "the wrong shard": (
        lambda m: m.update({"model.embed_tokens.weight": SHARDS[2] if m["model.embed_tokens.weight"] != SHARDS[2]
                            else SHARDS[0]}), r"holds model\.embed_tokens\.weight, which should be in"),
    "a tensor left out": (lambda m: m.pop("model.norm.weight"), r"holds model\.norm\.weight, which should be nowhere"),
    "nothing": (lambda m: m.clear(), "names 0 shards"),
    "too many shards": (lambda m: m.update({f"t{i}": f"{i}.safetensors" for i in range(5000)}), "names 5003 shards"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED_INDEXES)
def test_refused_indexes(case: str, folder: Path) -> None:
    change, message = REFUSED_INDEXES[case]
    edit_index(folder, change)
    with pytest.raises(FormatError, match=message):
        open_checkpoint(folder)


def test_a_shard_is_missing(folder: Path) -> None:
    (folder / SHARDS[1]).unlink()
    with pytest.raises(ModelNotFoundError, match=f"{SHARDS[1]} does not exist"):
        open_checkpoint(folder)


def test_a_tensor_in_two_shards(folder: Path) -> None:
    """The second copy could shadow the first: what the index does not name is refused."""
    index = json.loads((folder / INDEX).read_text())["weight_map"]
    (folder / "model-extra.safetensors").write_bytes(
        safetensors_of({"model.norm.weight": np.ones(16), "x": np.ones(1)})
    )
    edit_index(folder, lambda m: m.update({"x": "model-extra.safetensors"}))
    assert index["model.norm.weight"] != "model-extra.safetensors"
    with pytest.raises(FormatError, match=r"holds model\.norm\.weight, which should be in model-0000"):
        open_checkpoint(folder)


def test_shards_may_be_links_as_the_hub_keeps_them(folder: Path, tmp_path: Path) -> None:
    shard = folder / SHARDS[0]
    (tmp_path / "blob").write_bytes(shard.read_bytes())
    shard.unlink()
    shard.symlink_to("../blob")
    open_checkpoint(folder)


def test_one_file_wins_over_shards(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(safetensors_of({"x": np.ones(1)}))
    with pytest.raises(FormatError, match=r"model\.embed_tokens\.weight is missing"):
        open_checkpoint(folder)


@pytest.mark.parametrize(
    ("name", "message"),
    [("model.safetensors", "holds weights alone"), ("a.pth", "holds weights alone"), ("a.bin", "holds weights alone")],
)
def test_a_file_of_weights_is_no_model(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    with pytest.raises(UnsupportedError, match=message):
        open_checkpoint(tmp_path / name)


def test_folders_without_a_model(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"neither config\.json"):
        open_checkpoint(tmp_path)
    for shard in SHARDS:
        (folder / shard).unlink()
    (folder / INDEX).unlink()
    with pytest.raises(ModelNotFoundError, match=r"no weights: no model\.safetensors and no"):
        open_checkpoint(folder)


def test_a_card_that_is_a_pipe_is_not_waited_for(folder: Path) -> None:
    (folder / "README.md").unlink(missing_ok=True)
    os.mkfifo(folder / "README.md")
    assert describe(folder)["license"] in (None, "see LICENSE")


def test_templates(folder: Path) -> None:
    settings = folder / "tokenizer_config.json"
    edit(settings, chat_template="one")
    assert open_checkpoint(folder).template_source == "chat_template.jinja"
    (folder / "chat_template.jinja").unlink()
    assert open_checkpoint(folder).chat_template == "one"
    edit(settings, chat_template=[{"name": "rag", "template": "r"}, {"name": "default", "template": "d"}])
    checkpoint = open_checkpoint(folder)
    assert (checkpoint.chat_template, checkpoint.template_source) == ("d", "tokenizer_config.json, 'default' of 2")
    edit(settings, chat_template=[{"name": "rag", "template": "r"}])
    assert open_checkpoint(folder).chat_template is None
    edit(settings, chat_template=[3])
    with pytest.raises(FormatError, match="must be a string or a list of named templates"):
        open_checkpoint(folder)


@pytest.mark.parametrize("card", ["no front matter\nlicense: mit\n", "---\ntags: x\n---\nlicense: mit\n"])
def test_a_licence_is_only_what_the_card_says(card: str, folder: Path) -> None:
    (folder / "README.md").write_text(card)
    assert open_checkpoint(folder).license is None
    (folder / "LICENSE").touch()
    assert open_checkpoint(folder).license == "see LICENSE"
