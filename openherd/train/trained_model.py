"""A run's model, read back from one of its checkpoints, as a checkpoint like any other.

Adapters are merged in float32. `TrainedModel.checkpoint` is what the writers of `herd convert` take, so that a trained
model gets the files, names and types that a converted one gets.

Legend: T positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from openherd.checkpoints.source import Checkpoint
from openherd.config import ModelConfig
from openherd.errors import InputError
from openherd.train.assemble import first_weights_sha256
from openherd.train.batch import Batch
from openherd.train.checkpoint import MODEL, find, read_saved
from openherd.train.model.decoder import Decoder
from openherd.train.model.filling import fill
from openherd.train.model.loading import load_weights, named_tensors
from openherd.train.model.lora import add_lora
from openherd.train.model.present_weights import PresentWeights
from openherd.train.model.quantized import quantize_base
from openherd.train.model_facts import ModelFacts, read_model_facts
from openherd.train.parallel.world import World
from openherd.train.recipe import Recipe
from openherd.train.recipe_file import RECIPE_FILE, load_recipe

F32 = NDArray[np.float32]
Which = Literal["latest", "best"] | int


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """Weights of one checkpoint in float32 on the CPU, adapters merged, and what is beside them."""

    run: Path
    step: int
    facts: ModelFacts
    model: Decoder

    @property
    def checkpoint(self) -> Checkpoint:
        """For writers: tensors are views of the model's."""
        return Checkpoint(
            path=self.run,
            format="a training run",
            config=self.facts.config,
            tensors=PresentWeights(self.model),
            tokenizer=self.facts.tokenizer,
            chat_template=self.facts.chat_template,
            license=self.facts.license,
            metadata={},
        )

    @torch.no_grad()
    def logits(self, ids: Sequence[int]) -> Iterator[F32]:
        """Of one text's positions, [T, V] float32, all at once."""
        row = torch.tensor([list(ids)])
        nothing = torch.zeros_like(row)
        batch = Batch(row, torch.arange(len(ids))[None], nothing, nothing, nothing.float())
        yield self.model.logits(self.model(batch))[0].numpy()


def open_trained(run: Path, which: Which, open_base: Callable[[str], Checkpoint]) -> TrainedModel:
    """The model of a run's checkpoint; `open_base` finds the model that adapters were trained on.

    Raises InputError for a folder that holds no run or no checkpoint, FormatError for a checkpoint that has changed.
    """
    facts, recipe = read_model_facts(run), load_recipe(run / RECIPE_FILE)
    folder = find(run, which)
    saved = read_saved(folder)
    model = _empty_model(facts.config, recipe)
    if recipe.lora.rank:
        _load_base(model, open_base(facts.base), saved.identity)
    trained = {name: values for name, values in model.state_dict().items() if _is_trained(name, recipe)}
    World.single().load_tensors(folder / MODEL, trained)
    return TrainedModel(run, saved.state.step, facts, _merged(model) if recipe.lora.rank else model)


def open_adapted(run: Path, which: Which) -> tuple[Decoder, ModelFacts]:
    """The run's adapters alone, on a model whose other weights are not there (device "meta").

    Raises InputError for a run that trains all weights, and as `open_trained` does.
    """
    facts, recipe = read_model_facts(run), load_recipe(run / RECIPE_FILE)
    if not recipe.lora.rank:
        raise InputError(f"{run} trains all weights and has no adapter", hint="leave out --adapter-only")
    folder = find(run, which)
    model = Decoder(facts.config, device="meta")
    add_lora(model, recipe.lora.rank, recipe.lora.alpha, recipe.lora.targets)
    for _, module in model.named_modules():
        for half in ("lora_A", "lora_B"):
            if half in module._modules:
                module.get_submodule(half).to_empty(device="cpu")
    trained = {name: values for name, values in model.state_dict().items() if ".lora_" in name}
    World.single().load_tensors(folder / MODEL, trained)
    return model, facts


def _empty_model(config: ModelConfig, recipe: Recipe) -> Decoder:
    model = Decoder(config, device="meta")
    if recipe.lora.base_type:
        quantize_base(model, recipe.lora.base_type)
    if recipe.lora.rank:
        add_lora(model, recipe.lora.rank, recipe.lora.alpha, recipe.lora.targets)
    return model.to_empty(device="cpu").requires_grad_(False)


def _load_base(model: Decoder, base: Checkpoint, identity: Mapping[str, str]) -> None:
    """Raises InputError when it is not the model that the adapters were trained on."""
    if first_weights_sha256(base) != identity.get("first weights"):
        raise InputError(f"{base.path} is not the model that the adapters were trained on: its weights have changed")
    load_weights(model, base)


def _is_trained(name: str, recipe: Recipe) -> bool:
    return ".lora_" in name if recipe.lora.rank else True


def _merged(model: Decoder) -> Decoder:
    merged = Decoder(model.config, device="meta").to_empty(device="cpu").requires_grad_(False)
    for name, values in named_tensors(model):
        fill(merged.get_parameter(name), values)
    return merged
