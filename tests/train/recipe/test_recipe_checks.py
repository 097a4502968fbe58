"""Keys that do not go together are refused before anything is opened, and the message names the one to change."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from openherd.errors import InputError
from openherd.train.ingredients import open_ingredients
from openherd.train.memory import trained_parameters
from openherd.train.model.decoder import Decoder
from openherd.train.model.lora import add_lora, lora_parameters
from openherd.train.presets import model_config
from openherd.train.recipe import DataRecipe, Recipe
from openherd.train.recipe_checks import check_recipe, check_resolved
from openherd.train.recipe_file import load_recipe
from openherd.train.token_file import TokenWriter
from tests.train.recipe.conftest import Prepared

FINE: dict[str, dict[str, Any]] = {"model": {"init": "smollm2"}, "data": {"train": (Path("/tokens"),)}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"init": ""}}, "does not say what to train"),
        ({"model": {"init": "", "preset": "nano"}}, "model.tokenizer is empty"),
        ({"model": {"preset": "nano"}}, "model.preset is of a new model"),
        ({"model": {"dim": 64}}, "model.dim is of a new model"),
        ({"model": {"tokenizer": "x"}}, "model.tokenizer is of a new model"),
        ({"model": {"init": "", "tokenizer": "x", "preset": "nano", "depth": 3}}, "model.preset and model.depth"),
        ({"data": {"train": ()}}, "data.train is empty"),
        ({"lora": {"base_type": "q4_0"}}, "lora.base_type has no effect while lora.rank is 0"),
        ({"lora": {"alpha": 3.0}}, "lora.alpha has no effect while lora.rank is 0"),
        ({"lora": {"rank": 4}, "model": {"init": "", "tokenizer": "x", "preset": "nano"}}, "model.init is empty"),
        ({"dpo": {"beta": 0.3}}, "dpo.beta has no effect with objective pretrain"),
        ({"grpo": {"clip": 0.3}, "": {"objective": "dpo"}}, "grpo.clip has no effect with objective dpo"),
        ({"": {"objective": "grpo"}, "data": {"train": ()}}, "set grpo.prompts"),
        ({"": {"objective": "grpo"}, "grpo": {"prompts": (Path("/p"),)}}, "data.train has no effect with objective"),
        (
            {"": {"objective": "dpo"}, "model": {"init": "", "tokenizer": "x", "preset": "nano"}},
            "objective dpo starts from a model",
        ),
    ],
)
def test_a_combination_without_sense_is_refused(change: dict[str, dict[str, Any]], message: str) -> None:
    check_recipe(load_recipe(None, FINE))
    merged = {section: {**FINE.get(section, {}), **change.get(section, {})} for section in {*FINE, *change}}
    with pytest.raises(InputError) as caught:
        check_recipe(load_recipe(None, merged))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": {"seq_len": 128}}, "set data.seq_len to at most 64, or a greater model.max_seq_len"),
        ({"optimizer": {"warmup_steps": 99}}, "optimizer.warmup_steps is 99, and the run has 6 steps"),
        ({"model": {"n_kv_heads": 3}}, "model.n_kv_heads (3) does not divide"),
        ({"model": {"head_dim": 5}}, "rotation needs even numbers"),
    ],
)
def test_a_resolved_recipe_must_fit_its_model(
    prepared: Prepared, change: dict[str, dict[str, Any]], message: str
) -> None:
    fine: dict[str, dict[str, Any]] = {
        "model": {"tokenizer": str(prepared.vocabulary), "n_layers": 2, "dim": 32, "n_heads": 4, "max_seq_len": 64},
        "data": {"train": (prepared.train,)},
        "run": {"steps": 6},
    }
    open_ingredients(load_recipe(None, fine), device="cpu", cores=1)
    merged = {section: {**fine.get(section, {}), **change.get(section, {})} for section in {*fine, *change}}
    with pytest.raises(InputError) as caught:
        open_ingredients(load_recipe(None, merged), device="cpu", cores=1)
    assert message in str(caught.value)


def test_grpo_groups_fill_a_step(prepared: Prepared) -> None:
    recipe = load_recipe(None, {"": {"objective": "grpo"}, "run": {"rows_per_step": 12, "steps": 2}})
    recipe = replace(recipe, data=DataRecipe(seq_len=8), model=replace(recipe.model, init="x"))
    with pytest.raises(InputError, match=r"set run\.rows_per_step to a multiple of grpo\.group"):
        check_resolved(recipe, model_config(_shape(recipe), 261))


def test_adapters_go_to_maps_that_the_model_has(prepared: Prepared) -> None:
    """Falcon and MPT have no gate: by default there is none to adapt."""
    recipe = load_recipe(None, {"lora": {"rank": 4}, "run": {"rows_per_step": 12, "steps": 20}})
    recipe = replace(recipe, data=DataRecipe(seq_len=8), model=replace(recipe.model, init="x"))
    config = replace(model_config(_shape(recipe), 261), gated=False)
    check_resolved(recipe, config)
    model = Decoder(config)
    add_lora(model, 4, 8.0, recipe.lora.targets)
    assert trained_parameters(recipe, config) == sum(p.numel() for _, p in lora_parameters(model)) > 0
    recipe = replace(recipe, lora=replace(recipe.lora, targets=("q_proj", "gate_proj")))
    with pytest.raises(InputError, match=r"lora\.targets has 'gate_proj', and the layers of x have q_proj, k_proj"):
        check_resolved(recipe, config)


def _shape(recipe: Recipe) -> Any:
    return replace(recipe.model, dim=32, n_layers=1, n_heads=2, n_kv_heads=2, head_dim=16, ffn_dim=64, max_seq_len=64)


def test_data_must_be_of_the_objectives_kind_and_the_models_tokenizer(prepared: Prepared, tmp_path: Path) -> None:
    base: dict[str, dict[str, Any]] = {"model": {"tokenizer": str(prepared.vocabulary), "preset": "nano"}}
    for kind, tokenizer, template, message in (
        ("preferences", "", None, "holds preferences, and objective pretrain learns from documents"),
        ("documents", "another", None, "was prepared with another tokenizer"),
        ("documents", "", "another", "was prepared with another chat template"),
    ):
        folder = _folder(prepared, tmp_path / f"{kind}{tokenizer}{template}", kind, tokenizer, template)
        recipe = load_recipe(None, {**base, "data": {"train": (folder,)}})
        with pytest.raises(InputError) as caught:
            open_ingredients(recipe, device="cpu", cores=1)
        assert message in str(caught.value)


def _folder(data: Prepared, path: Path, kind: Any, tokenizer: str, template: str | None) -> Path:
    """Two documents of one token more than nothing, under another tokenizer or template where one is named."""
    import numpy as np

    from openherd.train.encoding import Encoded
    from openherd.train.token_file import Source, open_tokens

    manifest = open_tokens(data.train).manifest
    with TokenWriter(
        path,
        kind,
        vocab_size=manifest.vocab_size,
        tokenizer=tokenizer or manifest.tokenizer_sha256,
        template=template or manifest.template_sha256,
    ) as writer:
        writer.begin(Source("x", "0"))
        document = Encoded(np.array([1, 2, 3], np.int32), np.array([0, 1, 1], np.uint8))
        writer.add([document, document])
    return path
