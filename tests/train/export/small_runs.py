"""Runs as training leaves them, with weights that were never trained: what export needs is what lies on the disk."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import torch

from openherd.config import ModelConfig
from openherd.train.assemble import first_weights_sha256
from openherd.train.checkpoint import MODEL, OPTIMIZER, save
from openherd.train.model.decoder import Decoder
from openherd.train.model.filling import generator
from openherd.train.model.initial import initialise
from openherd.train.model.loading import model_from
from openherd.train.model.lora import add_lora, lora_parameters
from openherd.train.model_facts import ModelFacts, facts_of, keep_model_facts
from openherd.train.parallel.world import World
from openherd.train.recipe import LoraRecipe, Recipe
from openherd.train.recipe_file import RECIPE_FILE, as_toml
from openherd.train.run_state import RunState, SavedState
from openherd.train.tokenizer_source import open_tokenizer
from openherd.train.tokenizer_training import train_tokenizer

LICENSE = "apache-2.0"


STORY = (
    "Once upon a time there was a miller who had three sons, a mill, a donkey and a cat. The sons had to grind, the"
    " donkey had to fetch the corn and carry the flour, and the cat had to catch the mice. When the miller died, the"
    " three sons divided what he left: the eldest took the mill, the second the donkey, and the third took the cat."
)


@cache
def tokenizer_folder() -> Path:
    """A vocabulary of 320 tokens."""
    folder = Path(mkdtemp()) / "tokenizer"
    text = Path(mkdtemp()) / "text.txt"
    text.write_text(STORY)
    train_tokenizer([text], folder, 320)
    return folder


def config(vocab_size: int, max_seq_len: int = 64) -> ModelConfig:
    return ModelConfig(
        family="llama", dim=64, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=16, ffn_dim=96, vocab_size=vocab_size,
        max_seq_len=max_seq_len, tied_embeddings=True,
    )  # fmt: skip


def facts(max_seq_len: int = 64) -> ModelFacts:
    source = open_tokenizer(str(tokenizer_folder()))
    return ModelFacts(config(source.tokenizer().vocab_size, max_seq_len), source.spec, source.template, LICENSE)


def full_run(run: Path, *, steps: tuple[int, ...] = (4, 8), best: int = 4, max_seq_len: int = 64) -> dict[int, Decoder]:
    """A run of all weights with checkpoints of `steps`; its models by step."""
    run.mkdir()
    keep_model_facts(run, facts(max_seq_len), begins=True)
    (run / RECIPE_FILE).write_text(as_toml(Recipe()))
    models = {}
    for step in steps:
        models[step] = model = Decoder(facts(max_seq_len).config)
        initialise(model, seed=step)
        _spread(model)
        state = RunState(step=step, best_step=best, best_loss=1.0)
        save(run, SavedState(state, {}), {MODEL: model.state_dict(), OPTIMIZER: {}}, World.single())
    return models


def lora_run(run: Path, base: Path, *, base_type: str = "") -> Decoder:
    """A run of adapters on the model at `base`; returns the model with them."""
    from openherd.checkpoints import open_checkpoint

    run.mkdir()
    checkpoint = open_checkpoint(base)
    keep_model_facts(
        run, replace(facts_of(checkpoint, str(base), checkpoint.chat_template), license=LICENSE), begins=True
    )
    lora = LoraRecipe(rank=4, alpha=8.0, targets=("q_proj", "down_proj"), base_type=base_type)  # type: ignore[arg-type]
    (run / RECIPE_FILE).write_text(as_toml(Recipe(lora=lora)))
    model = model_from(checkpoint, base_type=base_type)
    add_lora(model, lora.rank, lora.alpha, lora.targets, seed=1)
    with torch.no_grad():
        for name, parameter in lora_parameters(model):
            parameter.copy_(torch.randn(parameter.shape, generator=generator(2, name)) * 0.05)
    identity = {"first weights": first_weights_sha256(checkpoint)}
    tensors = {MODEL: dict(lora_parameters(model)), OPTIMIZER: {}}
    save(run, SavedState(RunState(step=3, best_step=3, best_loss=1.0), identity), tensors, World.single())
    return model


def _spread(model: Decoder) -> None:
    """Weights as wide as those of a trained model, so that every part of it matters to the logits."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.mul_(6)
            else:
                parameter.add_(torch.rand(parameter.shape, generator=generator(3, name)) * 0.2)


def export_folder(out: str) -> None:
    """The first run's model as `herd train export --type f32` writes it."""
    from openherd.cli import main

    run = Path(mkdtemp()) / "run"
    full_run(run)
    assert main(["train", "export", str(run), out, "--type", "f32", "--threads", "1"]) == 0
