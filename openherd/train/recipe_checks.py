"""Which keys of a recipe go together, with its data and its model: everything that can be refused before a run, is.

Each message names the key to change. Keys that would have no effect are refused too: an option is never ignored.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import fields

from openherd.checkpoints.required_tensors import linear_maps
from openherd.config import ModelConfig
from openherd.errors import InputError
from openherd.train.recipe import DpoRecipe, GrpoRecipe, LoraRecipe, Recipe
from openherd.train.token_file import TokenFolder

_SHAPE = ("preset", "depth", "dim", "n_layers", "n_heads", "n_kv_heads", "head_dim", "ffn_dim", "max_seq_len")


def check_recipe(recipe: Recipe) -> None:
    """What can be said before anything is opened. Raises InputError."""
    _check_start(recipe)
    _check_lora(recipe)
    _check_objective(recipe)


def check_resolved(recipe: Recipe, config: ModelConfig) -> None:
    """What can be said of a resolved recipe and its model's config. Raises InputError."""
    run, data = recipe.run, recipe.data
    if not recipe.model.init:
        _check_heads(config)
    if data.seq_len > config.max_seq_len:
        raise InputError(
            f"data.seq_len is {data.seq_len}, and the model has a context of {config.max_seq_len}",
            hint=f"set data.seq_len to at most {config.max_seq_len}"
            + ("" if recipe.model.init else ", or a greater model.max_seq_len"),
        )
    _check_targets(recipe, config)
    if data.seq_len < 2:
        raise InputError("data.seq_len must be at least 2: a token learns to predict the next one")
    if recipe.objective == "grpo" and run.rows_per_step % recipe.grpo.group:
        raise InputError(
            f"run.rows_per_step is {run.rows_per_step} answers, which cannot be cut into groups of {recipe.grpo.group}",
            hint="set run.rows_per_step to a multiple of grpo.group",
        )
    if recipe.optimizer.warmup_steps > run.steps:
        raise InputError(
            f"optimizer.warmup_steps is {recipe.optimizer.warmup_steps}, and the run has {run.steps} steps",
            hint="set a smaller optimizer.warmup_steps, or a greater run.steps",
        )


def check_data(recipe: Recipe, folders: Iterable[TokenFolder], tokenizer_sha256: str, vocab_size: int) -> None:
    """Folders of prepared data, for training and for evaluation, against objective and tokenizer. Raises InputError."""
    wanted = "preferences" if recipe.objective == "dpo" else "documents"
    for folder in folders:
        manifest = folder.manifest
        if manifest.kind != wanted:
            other = "sft" if recipe.objective == "dpo" else "dpo"
            raise InputError(
                f"{folder.path} holds {manifest.kind}, and objective {recipe.objective} learns from {wanted}",
                hint=f"set objective to {other}, or prepare other data"
                + (": rows with chosen and rejected" if wanted == "preferences" else ""),
            )
        if manifest.tokenizer_sha256 != tokenizer_sha256:
            raise InputError(
                f"{folder.path} was prepared with another tokenizer ({manifest.vocab_size} tokens) than the model's "
                f"({vocab_size} tokens)",
                hint="prepare the data again: herd train prepare --model MODEL, with model.init or model.tokenizer",
            )


def _check_start(recipe: Recipe) -> None:
    model = recipe.model
    given = [name for name in _SHAPE if getattr(model, name)]
    given += [name for name in ("rope_theta", "embeddings") if getattr(model, name)]
    if model.init and given:
        raise InputError(
            f"model.{given[0]} is of a new model, and model.init is one that is there",
            hint=f"leave model.{given[0]} out, or model.init",
        )
    if model.init and model.tokenizer:
        raise InputError("model.tokenizer is of a new model, and model.init has its own", hint="leave one of them out")
    if not model.init and not model.tokenizer:
        if not given:
            raise InputError(
                "the recipe does not say what to train",
                hint="give a model to start from (--init MODEL), or a new one's size and tokenizer "
                "(--preset tiny --tokenizer FOLDER)",
            )
        raise InputError(
            "a new model needs a tokenizer, and model.tokenizer is empty",
            hint="make one with: herd train tokenizer FILE --out FOLDER; then give --tokenizer FOLDER",
        )
    if model.preset and model.depth:
        raise InputError("model.preset and model.depth both say how large the model is", hint="leave one of them out")


def _check_heads(config: ModelConfig) -> None:
    if config.dim % 2 or config.head_dim % 2:
        raise InputError(
            f"model.dim is {config.dim} and model.head_dim {config.head_dim}; rotation needs even numbers",
            hint="set model.dim and model.n_heads so that dim / n_heads is even",
        )
    if config.n_heads % config.n_kv_heads:
        raise InputError(
            f"model.n_heads is {config.n_heads}, which model.n_kv_heads ({config.n_kv_heads}) does not divide",
            hint="set model.n_kv_heads to a divisor of model.n_heads",
        )


def _check_lora(recipe: Recipe) -> None:
    lora = recipe.lora
    if not lora.rank:
        for name in _changed(lora, LoraRecipe()):
            raise InputError(
                f"lora.{name} has no effect while lora.rank is 0, which trains all weights",
                hint="set lora.rank (--rank 16)",
            )
        return
    if not recipe.model.init:
        raise InputError(
            "lora.rank adapts a model that is there, and model.init is empty", hint="set model.init, or lora.rank to 0"
        )


def _check_targets(recipe: Recipe, config: ModelConfig) -> None:
    there = [linear.rpartition(".")[2] for linear in linear_maps(config)]
    for target in recipe.lora.targets:
        if target not in there:
            raise InputError(
                f"lora.targets has {target[:80]!r}, and the layers of {recipe.model.init} have {', '.join(there)}",
                hint="leave lora.targets out to adapt all of them",
            )


def _check_objective(recipe: Recipe) -> None:
    objective = recipe.objective
    for section, values, default in (("dpo", recipe.dpo, DpoRecipe()), ("grpo", recipe.grpo, GrpoRecipe())):
        if objective != section and (changed := next(_changed(values, default), None)):
            raise InputError(
                f"{section}.{changed} has no effect with objective {objective}", hint=f"set objective to {section}"
            )
    if objective in ("dpo", "grpo") and not recipe.model.init:
        raise InputError(
            f"objective {objective} starts from a model that answers already, and model.init is empty",
            hint="set model.init (--init MODEL)",
        )
    if objective == "grpo":
        if not recipe.grpo.prompts:
            raise InputError("objective grpo learns from grpo.prompts, and there are none", hint="set grpo.prompts")
        if recipe.data.train:
            raise InputError("data.train has no effect with objective grpo", hint="set grpo.prompts instead")
    elif not recipe.data.train:
        raise InputError(
            "data.train is empty: there is nothing to learn from",
            hint="make it with: herd train prepare FILE --out FOLDER; then give --train FOLDER",
        )


def _changed(values: object, default: object) -> Iterator[str]:
    names = (entry.name for entry in fields(values))  # type: ignore[arg-type]
    return (name for name in names if getattr(values, name) != getattr(default, name))
