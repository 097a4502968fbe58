"""T15: what is forecast before a run is what is then measured, within 10 %; and too little memory is said before."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from openherd.config import ModelConfig
from openherd.train.batch import Batch
from openherd.train.memory import flops_per_token, memory_of, trained_parameters
from openherd.train.model.decoder import Decoder
from openherd.train.model.initial import initialise
from openherd.train.model.lora import add_lora, lora_parameters
from openherd.train.presets import Facts, resolve
from openherd.train.recipe import DataRecipe, LoraRecipe, ModelRecipe, Recipe, RunRecipe
from tests.train.recipe.conftest import Prepared, tiny

FULL = os.environ.get("OPENHERD_FULL_TESTS") == "1"
TOLERANCE = 0.10


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"pack": True},
        {"dtype": "bfloat16"},
        {"rank": 4},
        {"rank": 4, "dtype": "bfloat16"},
        {"activation_checkpointing": True},
    ],
    ids=lambda changes: "-".join(changes) or "plain",
)
def test_activations_are_what_autograd_keeps(changes: dict[str, Any]) -> None:
    """Counted of real tensors: each storage that the forward pass of a micro-batch saves, once, and parameters not."""
    packed = changes.get("pack", False)
    config = ModelConfig("llama", 64, 3, 4, 2, 16, 192, 128, 64, tied_embeddings=True)
    rank = changes.get("rank", 0)
    recipe = Recipe(
        objective="sft",
        data=DataRecipe(seq_len=64, pack=packed),
        run=RunRecipe(
            micro_rows=4,
            dtype=changes.get("dtype", "float32"),
            activation_checkpointing=changes.get("activation_checkpointing", False),
        ),
        lora=LoraRecipe(rank=rank),
    )
    kept = _kept_bytes(config, recipe, packed)
    forecast = memory_of(recipe, config, device="cpu")
    size = 2 if recipe.run.dtype == "bfloat16" else 4
    backward = 4 * 64 * size * (3 * config.ffn_dim + 2 * config.dim)  # the forecast's share for the backward pass
    if recipe.run.activation_checkpointing:
        # and for the layer that is computed again
        backward += 4 * 64 * (16 * 64 + 8 + 8 * (64 + 64) + 4 * 4 + 16 * 192)
    assert forecast.activations - backward == pytest.approx(kept, rel=0.05)


def _kept_bytes(config: ModelConfig, recipe: Recipe, packed: bool) -> int:
    dtype = torch.bfloat16 if recipe.run.dtype == "bfloat16" else torch.float32
    model = Decoder(config, dtype=dtype if recipe.lora.rank else torch.float32)
    initialise(model, 0)
    model.compute_dtype, model.activation_checkpointing = dtype, recipe.run.activation_checkpointing
    if recipe.lora.rank:
        add_lora(model, recipe.lora.rank, 8.0)
    rows, length = recipe.run.micro_rows, recipe.data.seq_len
    half = torch.arange(length) // (length // 2 if packed else length)
    documents = half.expand(rows, length).contiguous()
    positions = (torch.arange(length) - half * (length // 2)).expand(rows, length).contiguous()
    ids = torch.zeros(rows, length, dtype=torch.long)
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}
    alive = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        hidden = model(Batch(ids, positions, documents, ids, torch.ones(rows, length)))
    assert alive, "the hook saw tensors"
    return sum(kept.values()) + hidden.nbytes  # which the loss keeps


def test_the_forecast_knows_the_loss_and_the_adapters() -> None:
    config = ModelConfig("llama", 64, 2, 4, 2, 16, 192, 128, 64)
    recipe = Recipe(lora=LoraRecipe(rank=3, targets=("q_proj", "down_proj")))
    model = Decoder(config)
    add_lora(model, 3, 6.0, ("q_proj", "down_proj"))
    assert trained_parameters(recipe, config) == sum(p.numel() for _, p in lora_parameters(model))


def test_flops_are_six_for_each_parameter_and_attention() -> None:
    """By hand: PaLM's appendix B counts 6 N + 12 L H Q T a token without halving for causality."""
    config = ModelConfig("llama", 64, 2, 4, 4, 16, 192, 100, 64, tied_embeddings=True)
    matrices = 2 * (4 * 64 * 64 + 3 * 64 * 192) + 100 * 64
    norms = 5 * 64
    expected = 6 * (matrices + norms) + 12 * 2 * 4 * 16 * 32 / 2
    assert flops_per_token(Recipe(data=DataRecipe(seq_len=32)), config) == expected


def test_llama_sizes_need_what_is_known_of_them() -> None:
    """16 bytes a parameter for weights, gradients and moments in float32; blocks of 4 bits take 4.5 for each 8."""
    start = ModelConfig("llama", 4096, 32, 32, 8, 128, 14336, 128256, 8192)
    recipe = resolve(Recipe(model=ModelRecipe(preset="8b")), Facts(vocab_size=128256, device="cuda"))
    memory = memory_of(recipe, start, device="cuda")
    assert memory.weights + memory.gradients + memory.moments == pytest.approx(16 * 8.03e9, rel=0.001)
    eight = memory_of(recipe, start, device="cuda", processes=8)
    assert eight.weights == pytest.approx(memory.weights / 8, rel=0.001)
    assert eight.activations == memory.activations
    tuned = replace(recipe, lora=LoraRecipe(rank=16, base_type="q4_0"))
    assert memory_of(tuned, start, device="cuda").weights < 6.5e9


def test_too_little_memory_is_said_with_what_to_change(
    prepared: Prepared, herd: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openherd.train.estimate.free_memory", lambda: 420 << 20)
    wide = ["--dim", 512, "--n-heads", 8, "--micro-rows", 64, "--rows-per-step", 64, "--seq-len", 64]
    done = herd("run", *tiny(prepared, tmp_path / "run", *wide))
    assert done.status == 1
    assert "of memory and 440 MB are free" in done.err
    assert "it fits with run.micro_rows = " in done.err
    assert not (tmp_path / "run").exists(), "nothing was begun"
    done = herd("estimate", *tiny(prepared, tmp_path / "run", *wide), "--json")
    document = json.loads(done.out)
    assert (done.status, document["fits"], document["seconds"]) == (1, False, None)
    monkeypatch.setattr("openherd.train.estimate.free_memory", lambda: 1 << 20)
    assert "train a smaller model" in herd("run", *tiny(prepared, tmp_path / "run", *wide)).err


def test_too_little_memory_for_the_steps_that_were_tried_is_said_with_what_to_change(
    prepared: Prepared, herd: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openherd.train.estimate.free_memory", lambda: 1 << 30)
    monkeypatch.setattr("openherd.train.estimate.peak_memory", lambda device: (1 << 30) + (64 << 20))
    monkeypatch.setattr("openherd.train.estimate.resident_memory", lambda device: 0)
    wide = ["--dim", 512, "--n-heads", 8, "--micro-rows", 64, "--rows-per-step", 64, "--seq-len", 64]
    done = herd("run", *tiny(prepared, tmp_path / "run", *wide))
    assert done.status == 1
    assert "of memory and 1.1 GB are free" in done.err
    assert "it fits with run.micro_rows = 32" in done.err
    assert not (tmp_path / "run").exists(), "nothing was begun"


_MEASURED = """
import json, sys, time
import torch
torch.set_num_threads(1)
from openherd.cli import main
from openherd.train import start
from openherd.train.machine import forget_peak, peak_memory, resident_memory
device, before, forecast = torch.device("cpu"), 0, start.forecast

def where_the_forecast_is_made(*arguments, **flags):
    global before
    before = resident_memory(device)
    assert forget_peak(device)
    return forecast(*arguments, **flags)

start.forecast = where_the_forecast_is_made
began = time.process_time(), time.perf_counter()
status = main(sys.argv[1:])
used = time.process_time() - began[0], time.perf_counter() - began[1]
print(json.dumps({"status": status, "peak": peak_memory(device) - before, "cpu_s": used[0], "wall_s": used[1]}))
"""


def _measured(*arguments: object) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What a fresh process with one thread took, and what it printed before."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", _MEASURED, "train", *map(str, arguments), "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    documents = [json.loads(line) for line in done.stdout.splitlines()]
    assert documents[-1]["status"] == 0, done.stderr
    return documents[-1], documents[:-1]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are counted by Linux")
def test_t15_memory(prepared: Prepared, tmp_path: Path) -> None:
    """The peak of a real run above what the process had then, beside the forecast of another process."""
    shape = ["--dim", 256, "--n-layers", 4, "--n-heads", 4, "--seq-len", 128, "--max-seq-len", 128]
    run = ["--rows-per-step", 32, "--micro-rows", 16, "--steps", 2, "--evaluation", prepared.held_out]
    flags = tiny(prepared, tmp_path / "run", *shape, *run)
    _, (forecast,) = _measured("estimate", *flags)
    measured, _ = _measured("run", *flags, "--no-forecast")
    assert measured["peak"] > 100 << 20, "large enough that the libraries are not all of it"
    assert forecast["memory"]["needed"] == pytest.approx(measured["peak"], rel=TOLERANCE)


@pytest.mark.skipif(not FULL, reason="a minute of computing: make test-train")
def test_t15_time(prepared: Prepared, tmp_path: Path) -> None:
    """A run of a minute, forecast from a few of its steps. On a busy machine the wall tells nothing, so both are timed
    in turn up to three times, and one pair must agree."""
    shape = ["--dim", 128, "--n-layers", 4, "--n-heads", 4, "--seq-len", 64, "--max-seq-len", 64]
    found = []
    for attempt in range(3):
        run = ["--rows-per-step", 12, "--steps", 1500, "--evaluation", prepared.held_out]
        flags = tiny(prepared, tmp_path / f"run{attempt}", *shape, *run)
        _, (forecast,) = _measured("estimate", *flags)
        measured, _ = _measured("run", *flags, "--no-forecast")
        found.append(forecast["seconds"] / measured["wall_s"])
        if abs(found[-1] - 1) <= TOLERANCE:
            return
    pytest.fail(f"forecast / measured: {found}")


def test_what_is_timed_is_what_a_run_does(prepared: Prepared, herd: Any, tmp_path: Path) -> None:
    """The short form of T15's time: the parts add up to the whole as often as the recipe says, and nothing is left."""
    folder = tmp_path / "runs"
    folder.mkdir()
    flags = tiny(prepared, folder / "run", "--evaluation", prepared.held_out, "--price", "3600")
    document = json.loads(herd("estimate", *flags, "--json").out)
    assert document["steps"] == 6
    assert document["seconds"] > 6 * document["step_s"] > 0
    assert document["cost"] == pytest.approx(document["seconds"])
    assert 0 < document["utilisation"] < 2
    assert document["tokens_per_s"] == pytest.approx(4 * 32 / document["step_s"])
    assert list(folder.iterdir()) == [], "an estimate leaves nothing behind"
