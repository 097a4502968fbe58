"""What each process of the tests' worlds does. Called by `processes.together`, and by the tests for a world of one."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from openherd.config import ModelConfig
from openherd.train.batch import PADDING, Batch
from openherd.train.checkpoint import find
from openherd.train.loop import Trainer
from openherd.train.loss import nll_sum
from openherd.train.model.decoder import Decoder
from openherd.train.model.filling import whole
from openherd.train.model.initial import initialise
from openherd.train.objectives.likelihood import Likelihood
from openherd.train.order import DataOrder
from openherd.train.parallel.world import World
from openherd.train.run_log import RunLog
from openherd.train.token_file import open_tokens
from tests.train.loop import small_run

CONFIG = ModelConfig(
    family="llama", dim=32, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=8, ffn_dim=48, vocab_size=65,
    max_seq_len=64, tied_embeddings=True,
)  # fmt: skip
ROWS = 4


def batch_of(step: int, rank: int = 0, size: int = 1) -> Batch:
    """This share of a step's rows of two documents and padding; which, is a function of the step alone."""
    rng = np.random.default_rng(step)
    ids = rng.integers(0, CONFIG.vocab_size, (ROWS, 24))
    documents = np.repeat([[0] * 10 + [1] * 10 + [PADDING] * 4], ROWS, axis=0)
    positions = np.repeat([[*range(10), *range(10), *range(4)]], ROWS, axis=0)
    weights = (rng.random((ROWS, 24)) < 0.7) & (documents != PADDING)
    weights[:, [9, 19]] = False
    targets = np.where(weights, np.roll(ids, -1, axis=1), 0)
    mine = slice(rank * ROWS // size, (rank + 1) * ROWS // size)
    arrays = (torch.from_numpy(a[mine].astype(np.int64)) for a in (ids, positions, documents, targets))
    return Batch(*arrays, torch.from_numpy(weights[mine].astype(np.float32)))


def gradients(argument: dict[str, Any]) -> dict[str, Any]:
    """A first step's loss and its gradients' norm. Saved are the first weights, as they are divided, and by the main
    process every whole gradient."""
    with World.from_environment("cpu", tensor_parallel=argument["tensor_parallel"]) as world:
        # Where the model is divided it is made on "meta": a shard is all that is ever filled.
        model = world.wrap(Decoder(CONFIG, device="cpu" if world.num_processes == 1 else "meta"))
        initialise(model, seed=1)
        parameters = dict(model.named_parameters())
        world.save_tensors(Path(argument["out"]) / "weights", model.state_dict())
        batch = batch_of(0, world.rank, world.size)
        loss = nll_sum(model, model(batch), batch) / world.sum(batch.num_learnt)
        loss.backward()
        grads = {name: whole(p.grad) for name, p in parameters.items() if p.grad is not None}
        if world.is_main:
            World.single().save_tensors(Path(argument["out"]) / "gradients", grads)
        return {
            "place": [world.rank, world.size, world.tensor_parallel],
            "loss": world.sum(float(loss.detach())),
            "norm": world.gradient_norm(parameters.values()),
            "held": sum(getattr(p, "_local_tensor", p).numel() for p in parameters.values()),
            "any": world.any(world.rank == 1),
        }


class Watched(Likelihood):
    """Keeps a digest of each step's rows, whichever of them are this process's."""

    def __init__(self, order: DataOrder) -> None:
        super().__init__(order)
        self.seen: dict[int, str] = {}
        self._rows = order

    def micro_batches(self, step: int, rank: int, world: int, micro_rows: int) -> list[Batch]:
        batches = super().micro_batches(step, rank, world, micro_rows)
        all_rows, at = self._rows.rows(step).token_ids, rank * small_run.ROWS // world
        for batch in batches:
            n, width = batch.token_ids.shape
            assert np.array_equal(batch.token_ids.numpy(), all_rows[at : at + n, :width])
            at += n
        assert at == (rank + 1) * small_run.ROWS // world
        self.seen[step] = hashlib.sha256(all_rows.tobytes()).hexdigest()
        return batches


def trained(argument: dict[str, Any], world: World) -> dict[str, Any]:
    """Train in the folder `out` until `last`, going on where a checkpoint is: losses, rows and digests by step."""
    recipe = small_run.recipe_of(Path(argument["out"]), Path(argument["data"]), micro_rows=2, checkpoint_every=2)
    model = world.wrap(Decoder(small_run.CONFIG))
    initialise(model, recipe.run.seed)
    folders = [open_tokens(folder) for folder in recipe.data.train]
    order = DataOrder(folders, seq_len=recipe.data.seq_len, rows_per_step=recipe.run.rows_per_step, seed=3)
    objective, losses = Watched(order), {}
    log = RunLog(recipe.run.out if world.is_main else None, tensorboard=False)
    made = Trainer(model, objective, recipe, world, log, evaluation=lambda model, stop: {"loss": 1.0})
    report = made._report

    def stopping(found: Any, rate: float, seconds: float) -> None:
        """As if a signal came in the step before `last`."""
        losses[made.state.step - 1] = found.loss
        report(found, rate, seconds)
        if made.state.step == argument["last"]:
            made.interrupts.received = 15

    made._report = stopping  # type: ignore[method-assign]
    outcome = made.run()
    return {"losses": losses, "seen": objective.seen, "step": outcome.state.step, "digests": _digests(made)}


def _digests(made: Trainer) -> dict[str, str]:
    """Of every weight and moment this process holds, and of the state."""
    tensors = {**made._weights(), **made.adamw.moments()}
    held = {name: getattr(value, "_local_tensor", value) for name, value in tensors.items()}
    digest = hashlib.sha256(b"".join(held[name].detach().numpy().tobytes() for name in sorted(held)))
    return {"tensors": digest.hexdigest(), "state": repr(asdict(made.state))}


def phases(argument: dict[str, Any]) -> dict[str, Any]:
    """A whole run and one that is cut and goes on, both of two processes; then one that a single process began."""
    torch.set_num_threads(1)
    data, root = argument["data"], Path(argument["root"])
    with World.from_environment("cpu") as world:
        answers = {
            "whole": trained({"data": data, "out": str(root / "whole"), "last": small_run.STEPS}, world),
            "cut": trained({"data": data, "out": str(root / "cut"), "last": 5}, world),
        }
        if world.is_main:
            shutil.copytree(root / "cut", root / "for-one")
        world.barrier()
        answers["resumed"] = trained({"data": data, "out": str(root / "cut"), "last": small_run.STEPS}, world)
        answers["from-one"] = trained({"data": data, "out": str(root / "one"), "last": small_run.STEPS}, world)
        num_files = len(list((find(root / "whole") / "model").glob("*.safetensors")))
        return answers | {"files": num_files, "rank": world.rank}
