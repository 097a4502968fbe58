"""What each process of the tests' worlds does. Called by `processes.together`; the world of one is the test itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from openherd.config import ModelConfig
from openherd.train.batch import PADDING, Batch
from openherd.train.loss import nll_sum
from openherd.train.model.decoder import Decoder
from openherd.train.model.filling import whole
from openherd.train.model.initial import initialise
from openherd.train.parallel.world import World

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


def new_model(world: World) -> Decoder:
    """Made on "meta" where it is divided, so that a shard is all that is ever filled."""
    model = world.wrap(Decoder(CONFIG, device="cpu" if world.num_processes == 1 else "meta"))
    initialise(model, seed=1)
    return model


def backward(world: World, model: Decoder, step: int) -> tuple[float, float]:
    """Loss of the step and the norm of its gradients, which are left in the parameters."""
    batch = batch_of(step, world.rank, world.size)
    total = world.sum(batch.num_learnt)
    loss = nll_sum(model, model(batch), batch) / total
    model.zero_grad()
    loss.backward()
    return world.sum(float(loss)), world.gradient_norm(model.parameters())


def gradients(argument: dict[str, Any]) -> dict[str, Any]:
    """Loss, norm and every whole gradient of a first step."""
    with World.from_environment("cpu", tensor_parallel=argument["tensor_parallel"]) as world:
        model = new_model(world)
        loss, norm = backward(world, model, step=0)
        grads = {name: whole(p.grad) for name, p in model.named_parameters() if p.grad is not None}
        held = sum(_local(p).numel() for p in model.parameters())
        place = [world.rank, world.size, world.tensor_parallel]
        if world.is_main:
            world_of_one = World.single()
            world_of_one.save_tensors(Path(argument["out"]), grads)
        return {"place": place, "loss": loss, "norm": norm, "held": held, "any": world.any(world.rank == 1)}


def train(argument: dict[str, Any]) -> dict[str, Any]:
    """Steps [first, last) by AdamW, from a folder of weights and moments if one is given, into another."""
    with World.from_environment("cpu") as world:
        model = new_model(world)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        if argument["start"]:
            _restore(world, model, optimizer, Path(argument["start"]), argument["first"])
        losses = []
        for step in range(argument["first"], argument["last"]):
            loss, norm = backward(world, model, step)
            losses.append([loss, norm])
            optimizer.step()
        folder = Path(argument["out"])
        world.save_tensors(folder / "model", model.state_dict())
        world.save_tensors(folder / "optimizer", _moments(model, optimizer))
        return {"losses": losses}


def _restore(world: World, model: Decoder, optimizer: torch.optim.Optimizer, folder: Path, step: int) -> None:
    world.load_tensors(folder / "model", model.state_dict())
    for parameter in model.parameters():
        optimizer.state[parameter] = {
            "step": torch.tensor(float(step)),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }
    world.load_tensors(folder / "optimizer", _moments(model, optimizer))


def _moments(model: Decoder, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    kinds = ("exp_avg", "exp_avg_sq")
    return {f"{k}.{name}": optimizer.state[p][k] for name, p in model.named_parameters() for k in kinds}


def _local(parameter: Tensor) -> Tensor:
    return getattr(parameter, "_local_tensor", parameter)
