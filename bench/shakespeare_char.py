"""Characters of Shakespeare, with nanoGPT's budget for a CPU: 4 layers, 128 wide, 64 of context, batch 12, 2,000 steps.

    python -m bench.shakespeare_char TEXT [--steps 2000] [--threads N] [--learning-rate 3e-3]

Trains openherd's Llama-like model on the first nine tenths of TEXT through `herd train`'s own parts, and, in turns of
50 steps beside it, a plain PyTorch loop: nanoGPT's model (Karpathy 2022: LayerNorm, GELU, learned positions) with its
settings, written as one would write it by hand. Printed is one JSON document: the loss of both on the last tenth, in
nats a character, and the seconds of their steps. nanoGPT's README names 1.88 for this budget.

Both see the same number of characters. What differs is the model, its learning rate, and the vocabulary (261 bytes and
control tokens against the 65 characters of the text), which makes ours slightly harder.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from openherd.train.assemble import assemble
from openherd.train.ingredients import open_ingredients
from openherd.train.parallel.world import World
from openherd.train.prepare import WeightedPath, prepare
from openherd.train.recipe_file import load_recipe
from openherd.train.run_log import RunLog, read_log
from openherd.train.tokenizer_source import open_tokenizer
from openherd.train.tokenizer_training import MIN_VOCAB, train_tokenizer

LAYERS, DIM, HEADS, CONTEXT, BATCH = 4, 128, 4, 64, 12
# Of a gated feed-forward, three matrices; nanoGPT has two, 512 wide. 320 would have as many weights. This narrow one's
# steps take as long as the plain loop's, gate and rotation included, and it still learns more in as many of them.
FFN_DIM = 192
LEARNING_RATE = 3e-3
TURN = 50


class Block(nn.Module):
    """nanoGPT's layer."""

    def __init__(self) -> None:
        super().__init__()
        self.before_attention, self.before_mlp = nn.LayerNorm(DIM, bias=False), nn.LayerNorm(DIM, bias=False)
        self.qkv, self.out = nn.Linear(DIM, 3 * DIM, bias=False), nn.Linear(DIM, DIM, bias=False)
        self.up, self.down = nn.Linear(DIM, 4 * DIM, bias=False), nn.Linear(4 * DIM, DIM, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        heads = self.qkv(self.before_attention(x)).view(batch, length, 3, HEADS, DIM // HEADS)
        q, k, v = heads.permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(seen.transpose(1, 2).reshape(batch, length, DIM))
        return x + self.down(functional.gelu(self.up(self.before_mlp(x))))


class PlainLoop:
    """nanoGPT's model and settings, and a loop of the usual ten lines."""

    def __init__(self, text: str, steps: int) -> None:
        torch.manual_seed(1337)
        letters = {letter: n for n, letter in enumerate(sorted(set(text)))}
        ids = torch.tensor([letters[letter] for letter in text])
        cut = int(0.9 * len(ids))
        self.train, self.held_out, self.steps, self.step, self.seconds = ids[:cut], ids[cut:], steps, 0, 0.0
        self.table, self.places = nn.Embedding(len(letters), DIM), nn.Embedding(CONTEXT, DIM)
        self.blocks, self.norm = nn.Sequential(*(Block() for _ in range(LAYERS))), nn.LayerNorm(DIM, bias=False)
        self.parts = nn.ModuleList([self.table, self.places, self.blocks, self.norm])
        for name, weight in self.parts.named_parameters():
            if weight.ndim == 2:
                residual = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(weight, std=0.02 / math.sqrt(2 * LAYERS) if residual else 0.02)
        decayed = [p for p in self.parts.parameters() if p.ndim == 2]
        rest = [p for p in self.parts.parameters() if p.ndim < 2]
        groups = [{"params": decayed, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
        self.adamw = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99), fused=True)

    def loss(self, starts: Tensor, data: Tensor) -> Tensor:
        rows = torch.stack([data[start : start + CONTEXT + 1] for start in starts.tolist()])
        hidden = self.norm(self.blocks(self.table(rows[:, :-1]) + self.places.weight))
        return functional.cross_entropy((hidden @ self.table.weight.T).flatten(0, 1), rows[:, 1:].flatten())

    def run(self, count: int) -> None:
        began = time.perf_counter()
        for _ in range(count):
            rate = self._rate()
            for group in self.adamw.param_groups:
                group["lr"] = rate
            self.loss(torch.randint(len(self.train) - CONTEXT - 1, (BATCH,)), self.train).backward()
            torch.nn.utils.clip_grad_norm_(self.parts.parameters(), 1.0)
            self.adamw.step()
            self.adamw.zero_grad(set_to_none=True)
            self.step += 1
        self.seconds += time.perf_counter() - began

    @torch.no_grad()
    def held_out_loss(self) -> float:
        starts = torch.arange(0, len(self.held_out) - CONTEXT - 1, CONTEXT)
        parts = [(float(self.loss(some, self.held_out)), len(some)) for some in starts.split(256)]
        return sum(loss * n for loss, n in parts) / len(starts)

    def _rate(self) -> float:
        warm = min(100, self.steps // 10)
        if self.step < warm:
            return 1e-3 * (self.step + 1) / warm
        share = (self.step - warm) / max(1, self.steps - warm)
        return 1e-4 + 0.5 * (1 + math.cos(math.pi * share)) * 9e-4


def compare(text: str, steps: int, threads: int, learning_rate: float, folder: Path) -> dict[str, Any]:
    """Train both in turns of `TURN` steps, so that what else the machine does falls on both alike."""
    recipe = load_recipe(None, _overrides(_prepared(text, folder), steps, threads, learning_rate, folder))
    ingredients = open_ingredients(recipe, device="cpu", cores=threads)
    torch.set_num_threads(threads)
    plain, seconds = PlainLoop(text, steps), []

    def in_turns(step: int, metrics: Mapping[str, float]) -> None:
        seconds.append(metrics["seconds"])
        if step % TURN == 0 or step == steps:
            plain.run(step - plain.step)

    with World.single() as world, RunLog(folder / "run", tensorboard=False) as log:
        trainer = assemble(ingredients, world, log, progress=in_turns)
        trainer.samples = None
        trainer.run()
        parameters = sum(weight.numel() for weight in trainer.model.parameters())
    evaluations = [entry for entry in read_log(folder / "run") if entry.get("event") == "evaluation"]
    return {
        "steps": steps,
        "threads": threads,
        "ours": {
            "loss": evaluations[-1]["loss"],
            "seconds": sum(seconds),
            "median_step_s": float(np.median(seconds)),
            "parameters": parameters,
            "learning_rate": learning_rate,
        },
        "plain": {
            "loss": plain.held_out_loss(),
            "seconds": plain.seconds,
            "parameters": sum(weight.numel() for weight in plain.parts.parameters()),
            "learning_rate": 1e-3,
        },
        "time_of_plain": sum(seconds) / plain.seconds,
    }


def _prepared(text: str, folder: Path) -> Path:
    """Vocabulary of bytes, and tokens of both parts of the text, in `folder`."""
    cut = int(0.9 * len(text))
    for name, part in (("train", text[:cut]), ("held_out", text[cut:])):
        (folder / f"{name}.txt").write_text(part, encoding="utf-8")
    train_tokenizer([folder / "train.txt"], folder / "bytes", MIN_VOCAB)
    source = open_tokenizer(str(folder / "bytes"))
    tokenizer = source.tokenizer()
    for name in ("train", "held_out"):
        paths = [WeightedPath(folder / f"{name}.txt")]
        prepare(paths, folder / f"{name}_tokens", tokenizer, source.chat_template(tokenizer))
    return folder


def _overrides(folder: Path, steps: int, threads: int, learning_rate: float, out: Path) -> dict[str, dict[str, Any]]:
    return {
        "model": {"tokenizer": str(folder / "bytes"), "n_layers": LAYERS, "dim": DIM, "n_heads": HEADS}
        | {"n_kv_heads": HEADS, "ffn_dim": FFN_DIM, "max_seq_len": CONTEXT},
        "data": {"train": (folder / "train_tokens",), "evaluation": (folder / "held_out_tokens",), "seq_len": CONTEXT},
        "optimizer": {"learning_rate": learning_rate, "warmup_steps": max(1, min(100, steps // 10)), "beta2": 0.99},
        "run": {"out": out / "run", "steps": steps, "rows_per_step": BATCH, "micro_rows": BATCH, "threads": threads}
        | {"eval_every": steps, "checkpoint_every": steps, "dtype": "float32", "device": "cpu"},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--learning-rate", type=float, default=LEARNING_RATE)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        text = asked.text.read_text(encoding="utf-8")
        print(json.dumps(compare(text, asked.steps, asked.threads, asked.learning_rate, Path(folder)), indent=1))


if __name__ == "__main__":
    main()
