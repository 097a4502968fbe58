"""What a run is made of, opened and checked: tokenizer, config, data, and the recipe resolved against them.

Imports no torch, so that everything a person got wrong is said in a moment.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from openherd.checkpoints.source import Checkpoint
from openherd.config import ModelConfig
from openherd.errors import InputError
from openherd.tokenizers import ChatTemplate, Tokenizer
from openherd.train.model_facts import ModelFacts, facts_of
from openherd.train.objectives.prompts import Prompts, read_prompts
from openherd.train.prepare import tokenizer_sha256
from openherd.train.presets import Facts, model_config, resolve
from openherd.train.recipe import Recipe
from openherd.train.recipe_checks import check_data, check_recipe, check_resolved
from openherd.train.token_file import TokenFolder, open_tokens
from openherd.train.tokenizer_source import TokenizerSource, open_tokenizer


@dataclass(frozen=True, slots=True)
class Ingredients:
    """All that a run needs beside the machine."""

    recipe: Recipe  # resolved
    config: ModelConfig
    source: TokenizerSource
    tokenizer: Tokenizer
    template: ChatTemplate | None
    training: tuple[TokenFolder, ...]
    evaluation: tuple[TokenFolder, ...]
    prompts: Prompts | None = None  # of grpo

    @property
    def checkpoint(self) -> Checkpoint | None:
        """The model that is started from; None: new weights."""
        return self.source.checkpoint if self.recipe.model.init else None

    def facts(self) -> ModelFacts:
        """What the run's folder keeps of the model beside its weights."""
        checkpoint, template = self.checkpoint, self.source.template
        if checkpoint is not None:
            return facts_of(checkpoint, self.recipe.model.init, template)
        return ModelFacts(self.config, self.source.spec, template)


def open_ingredients(
    recipe: Recipe, *, device: Literal["cpu", "cuda"], cores: int, offline: bool = False
) -> Ingredients:
    """Open what `recipe` names, check that it fits together, and fill what the recipe leaves open.

    Raises InputError and its kinds; the message names the key to change.
    """
    check_recipe(recipe)
    model = recipe.model
    source = open_tokenizer(model.init or model.tokenizer, template=model.template or None, offline=offline)
    if model.init and source.checkpoint is None:
        raise InputError(
            f"model.init is {model.init}, which holds a tokenizer and no weights", hint="set model.tokenizer instead"
        )
    tokenizer = source.tokenizer()
    template = source.chat_template(tokenizer)
    training, evaluation = (
        tuple(open_tokens(path, verify=True) for path in paths) for paths in (recipe.data.train, recipe.data.evaluation)
    )
    check_data(recipe, (*training, *evaluation), tokenizer_sha256(tokenizer), tokenizer.vocab_size)
    _check_template((*training, *evaluation), source.template)
    prompts = _prompts(recipe, tokenizer, template, source.checkpoint)
    start = source.checkpoint.config if model.init and source.checkpoint else None
    facts = _facts(recipe, training, start, tokenizer.vocab_size, len(prompts) if prompts else 0)
    resolved = resolve(recipe, replace(facts, device=device, cores=cores))
    config = start or model_config(resolved.model, tokenizer.vocab_size)
    check_resolved(resolved, config)
    return Ingredients(resolved, config, source, tokenizer, template, training, evaluation, prompts)


def _check_template(folders: Sequence[TokenFolder], template: str | None) -> None:
    ours = None if template is None else hashlib.sha256(template.encode()).hexdigest()
    for folder in folders:
        if folder.manifest.template_sha256 != ours:
            raise InputError(
                f"{folder.path} was prepared with another chat template than the run would keep with its model",
                hint="give the run the same one: model.template (--template), as given to herd train prepare",
            )


def _prompts(
    recipe: Recipe, tokenizer: Tokenizer, template: ChatTemplate | None, checkpoint: Checkpoint | None
) -> Prompts | None:
    if recipe.objective != "grpo" or checkpoint is None:
        return None
    longest = min(recipe.data.seq_len or 2048, checkpoint.config.max_seq_len)
    room = longest - recipe.grpo.max_new_tokens
    if room < 1:
        raise InputError(
            f"grpo.max_new_tokens is {recipe.grpo.max_new_tokens}: no room for a prompt in {longest} tokens",
            hint="set a smaller grpo.max_new_tokens, or a greater data.seq_len",
        )
    paths: list[Path] = list(recipe.grpo.prompts)
    return read_prompts(paths, recipe.grpo.reward, tokenizer, template, max_tokens=room)


def _facts(
    recipe: Recipe, training: Sequence[TokenFolder], start: ModelConfig | None, vocab_size: int, prompts: int
) -> Facts:
    documents = sum(len(folder) for folder in training)
    return Facts(
        vocab_size=vocab_size,
        start=start,
        tokens=sum(folder.manifest.tokens for folder in training),
        documents=documents // 2 if recipe.objective == "dpo" else documents,
        longest=max((int(np.diff(folder.ends).max()) for folder in training if len(folder)), default=0),
        prompts=prompts,
    )
