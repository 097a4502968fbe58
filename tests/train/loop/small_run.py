"""A run that takes a second: a tiny model, forty documents, and every part of the loop at work."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from openherd.config import ModelConfig
from openherd.train.batch import Batch
from openherd.train.encoding import Encoded
from openherd.train.evaluation import Sample
from openherd.train.interrupts import Interrupts
from openherd.train.loop import Trainer
from openherd.train.model.decoder import Decoder
from openherd.train.model.initial import initialise
from openherd.train.objectives.likelihood import Likelihood
from openherd.train.order import DataOrder
from openherd.train.parallel.world import World
from openherd.train.recipe import DataRecipe, OptimizerRecipe, Recipe, RunRecipe
from openherd.train.run_log import RunLog
from openherd.train.token_file import Source, TokenFolder, TokenWriter, open_tokens

CONFIG = ModelConfig(
    family="llama", dim=32, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=8, ffn_dim=48, vocab_size=64,
    max_seq_len=32, tied_embeddings=True,
)  # fmt: skip
STEPS, EVERY = 12, 4
ROWS = 8
Change = Callable[[Trainer], None]


def write_data(path: Path, *, seed: int = 0) -> TokenFolder:
    """Documents of 5 to 60 tokens, half of them conversations that learn only their second half."""
    random = np.random.Generator(np.random.Philox(seed))
    with TokenWriter(path, "documents", vocab_size=CONFIG.vocab_size, tokenizer="t", template=None) as writer:
        writer.begin(Source("d.txt", "0" * 64))
        for number in range(40):
            ids = random.integers(0, CONFIG.vocab_size, random.integers(5, 60)).astype(np.int32)
            mask = np.ones(len(ids), np.uint8)
            mask[: max(1, number % 2 * len(ids) // 2)] = 0
            writer.add([Encoded(ids, mask)])
    return open_tokens(path)


def recipe_of(out: Path, data: Path, **run: Any) -> Recipe:
    usual: dict[str, Any] = {
        "out": out, "steps": STEPS, "rows_per_step": ROWS, "micro_rows": 4, "seed": 3, "dtype": "float32",
        "device": "cpu", "threads": 1, "eval_every": EVERY, "sample_every": EVERY, "checkpoint_every": EVERY,
    }  # fmt: skip
    return Recipe(
        data=DataRecipe(train=(data,), seq_len=24),
        optimizer=OptimizerRecipe(learning_rate=1e-2, warmup_steps=2),
        run=RunRecipe(**usual | run),
    )


class Drawing(Likelihood):
    """Also takes a random number a step, so that a wrong state of the generator would show in the weights."""

    def loss(self, model: Decoder, batch: Batch, total: float) -> Any:
        part = super().loss(model, batch, total)
        return replace(part, loss=part.loss * (1 + 0.01 * torch.rand(())))


def trainer(
    recipe: Recipe, *, world: World | None = None, interrupts: Interrupts | None = None, config: ModelConfig = CONFIG,
    facts: Mapping[str, str] | None = None,
) -> Trainer:  # fmt: skip
    torch.set_num_threads(1)
    world = world or World.single()
    model = world.wrap(Decoder(config))
    initialise(model, recipe.run.seed)
    run = recipe.run
    folders = [open_tokens(folder) for folder in recipe.data.train]
    order = DataOrder(folders, seq_len=recipe.data.seq_len, rows_per_step=run.rows_per_step, seed=run.seed)
    held_out = Batch.from_arrays(order.rows(1_000_000))
    objective = Drawing(order)

    def evaluation(model: Decoder, stop: Callable[[], bool]) -> Mapping[str, float]:
        with torch.no_grad():
            return {"loss": float(Likelihood.loss(objective, model, held_out, held_out.num_learnt).loss)}

    return Trainer(
        model,
        objective,
        recipe,
        world,
        RunLog(run.out, tensorboard=False),
        evaluation=evaluation,
        samples=lambda model: [Sample("a", "b")],
        interrupts=interrupts,
        facts=facts,
    )


def digests(made: Trainer) -> dict[str, str]:
    """SHA-256 of everything that a resumed run must have alike."""
    tensors = {"weights": made._weights(), "moments": made.adamw.moments()}
    found = {}
    for name, named in tensors.items():
        digest = hashlib.sha256()
        for key, tensor in sorted(named.items()):
            digest.update(key.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
        found[name] = digest.hexdigest()
    found["rng"] = hashlib.sha256(torch.get_rng_state().numpy().tobytes()).hexdigest()
    found["state"] = repr(made.state)
    steps = {float(state["step"]) for state in made.adamw._adamw.state.values()}
    return found | {"updates": repr(steps)}


def log_of(out: Path) -> list[dict[str, Any]]:
    lines = (out / "log.jsonl").read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def events(out: Path, kind: str) -> list[dict[str, Any]]:
    return [line for line in log_of(out) if line.get("event") == kind]
