"""Training on a CUDA GPU: tokens/s, share of the bf16 peak and memory, beside transformers and peft.

    python -m bench.train_gpu [--peer-python PYTHON] [--only 1b-pretrain | 8b-lora] [--json FILE]

Two runs: a new model of Llama 3.2 1B's shape with all weights trained, and LoRA of rank 16 on Llama 3.1 8B's shape.
Weights and tokens are random: no product's time depends on the numbers. Each side runs in a process of its own, ours
through `Trainer` (gradients, norm, update: all that a step of `herd train run` does but its log), the peer through
transformers' model, peft and torch's fused AdamW, with the same rows, dtype, checkpointing and torch.compile. The peer
needs a Python with torch, transformers and peft: --peer-python; without it, its column says that it was not measured.

Utilisation counts the work that must be done (`train.memory.flops_per_token`), not what checkpointing repeats, as a
share of the fastest bf16 product of 8,192 x 8,192 that the same GPU does, measured by the same process.

--miniature runs the same code on the CPU with models of a few thousand weights, as a test does.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from openherd.config import ModelConfig
from openherd.train.batch import Batch
from openherd.train.loop import Trainer
from openherd.train.machine import forget_peak, measured_peak, peak_memory
from openherd.train.memory import flops_per_token
from openherd.train.model.decoder import Decoder
from openherd.train.model.lora import add_lora
from openherd.train.objectives.likelihood import Likelihood
from openherd.train.parallel.world import World
from openherd.train.plain_json import as_plain, from_plain
from openherd.train.presets import Facts, resolve
from openherd.train.recipe import DataRecipe, LoraRecipe, ModelRecipe, Recipe, RunRecipe
from openherd.train.run_log import RunLog

VOCAB = 128256
PEER = Path(__file__).parent / "peer_workers" / "transformers_trainer.py"
WARM_UP, TIMED = 3, 10  # steps; the first compiles


@dataclass(frozen=True, slots=True)
class Case:
    """One run: model, rows and number of steps."""

    name: str
    config: ModelConfig
    rows: int  # a step, in micro-batches of `micro_rows`
    micro_rows: int
    seq_len: int
    lora_rank: int  # 0: all weights
    device: str = "cuda"
    dtype: str = "bfloat16"
    compile: bool = True
    warm_up: int = WARM_UP
    timed: int = TIMED

    @property
    def recipe(self) -> Recipe:
        """As `herd train run` would have it."""
        shape = ModelRecipe(preset="nano", max_seq_len=self.seq_len)
        recipe = Recipe(
            objective="sft" if self.lora_rank else "pretrain",
            model=shape,
            data=DataRecipe(seq_len=self.seq_len),
            run=RunRecipe(
                steps=self.warm_up + self.timed,
                rows_per_step=self.rows,
                micro_rows=self.micro_rows,
                dtype=self.dtype,  # type: ignore[arg-type]
                device=self.device,  # type: ignore[arg-type]
                activation_checkpointing=True,
            ),
            lora=LoraRecipe(rank=self.lora_rank),
        )
        return resolve(recipe, Facts(vocab_size=self.config.vocab_size, tokens=1 << 40, documents=1, longest=1))


LLAMA_1B = ModelConfig(
    family="llama", dim=2048, n_layers=16, n_heads=32, n_kv_heads=8, head_dim=64, ffn_dim=8192, vocab_size=VOCAB,
    max_seq_len=4096, rope_theta=500000.0, tied_embeddings=True,
)  # fmt: skip
LLAMA_8B = replace(
    LLAMA_1B, dim=4096, n_layers=32, head_dim=128, ffn_dim=14336, max_seq_len=8192, tied_embeddings=False
)
CASES = (
    Case("1b-pretrain", LLAMA_1B, rows=32, micro_rows=8, seq_len=4096, lora_rank=0),
    Case("8b-lora", LLAMA_8B, rows=16, micro_rows=4, seq_len=2048, lora_rank=16),
)


def miniature(case: Case) -> Case:
    """The same on the CPU, in a second."""
    config = replace(case.config, dim=32, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=8, ffn_dim=48, vocab_size=64)
    return replace(
        case, config=config, rows=4, micro_rows=2, seq_len=16, lora_rank=min(2, case.lora_rank), device="cpu",
        dtype="float32", compile=False, warm_up=1, timed=2,
    )  # fmt: skip


def measure_ours(case: Case) -> dict[str, Any]:
    """Seconds of the timed steps, peak memory and the device's peak rate."""
    world, dtype = World.single(case.device), getattr(torch, case.dtype)
    peak_flops = measured_peak(case.device, dtype)
    model = Decoder(case.config, dtype=dtype if case.lora_rank else torch.float32, device="meta")
    model.compute_dtype, model.activation_checkpointing = dtype, True
    if case.lora_rank:
        add_lora(model, case.lora_rank, 2.0 * case.lora_rank)
    world.wrap(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.02)
    if case.compile:
        model.compile_layers()
    trainer = Trainer(model, _RandomRows(case), case.recipe, world, RunLog(None))
    forget_peak(world.device)
    seconds, loss = [], 0.0
    for step in range(case.warm_up + case.timed):
        began = time.perf_counter()
        found = trainer.gradients(step)
        trainer.adamw.update(1e-4, found.norm)
        trainer.adamw.forget_gradients()
        if case.device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
        loss = found.loss
    device = torch.cuda.get_device_name() if case.device == "cuda" else "CPU"
    return {
        "seconds": seconds[case.warm_up :],
        "peak_bytes": peak_memory(world.device),
        "peak_flops": peak_flops,
        "device": device,
        "loss": loss,
        "versions": {"torch": torch.__version__},
    }


class _RandomRows(Likelihood):
    """Rows of random tokens, each one document, all learnt."""

    fingerprint = "random"

    def __init__(self, case: Case) -> None:
        self._case = case

    def micro_batches(self, step: int, rank: int, world: int, micro_rows: int) -> list[Batch]:
        made = []
        for start in range(0, self._case.rows, micro_rows):
            generator = torch.Generator().manual_seed(step * self._case.rows + start)
            shape = (micro_rows, self._case.seq_len)
            ids = torch.randint(self._case.config.vocab_size, shape, generator=generator)
            positions = torch.arange(self._case.seq_len).expand(shape).contiguous()
            made.append(Batch(ids, positions, torch.zeros_like(ids), ids.roll(-1, 1), torch.ones(shape)))
        return made


def figures(case: Case, measured: dict[str, Any], peak_flops: float) -> dict[str, Any]:
    """Tokens/s of the median step, utilisation of `peak_flops`, memory in GB."""
    times = sorted(measured["seconds"])
    tokens_per_s = case.rows * case.seq_len / times[len(times) // 2]
    return {
        "tokens_per_s": tokens_per_s,
        "utilisation": tokens_per_s * flops_per_token(case.recipe, case.config) / peak_flops,
        "memory_gb": measured["peak_bytes"] / 1e9,
        "slowest_over_median": times[-1] / times[len(times) // 2],
        "versions": measured["versions"],
    }


def run_case(case: Case, peer_python: str | None) -> dict[str, Any]:
    """Both sides, one after the other, each in a process of its own."""
    ours = _in_process([sys.executable, "-m", "bench.train_gpu", "--worker"], case)
    result: dict[str, Any] = {"case": case.name, "device": ours["device"], "peak_tflops": ours["peak_flops"] / 1e12}
    result["openherd"] = figures(case, ours, ours["peak_flops"])
    if peer_python is not None:
        peer = _in_process([peer_python, str(PEER)], case)
        result["transformers"] = figures(case, peer, ours["peak_flops"])
    return result


def _in_process(command: list[str], case: Case) -> dict[str, Any]:
    done = subprocess.run(command, input=json.dumps(as_plain(case)), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with status {done.returncode}:\n{done.stderr[-4000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def lines(results: list[dict[str, Any]]) -> list[str]:
    """A table in Markdown."""
    found = ["| run | side | tokens/s | share of the bf16 peak | memory |", "|---|---|---|---|---|"]
    for result in results:
        for side in ("openherd", "transformers"):
            if side not in result:
                found.append(f"| {result['case']} | {side} | not measured (--peer-python) | | |")
                continue
            f = result[side]
            found.append(
                f"| {result['case']} | {side} | {f['tokens_per_s']:,.0f} | {f['utilisation']:.0%} of"
                f" {result['peak_tflops']:.0f} TFLOP/s | {f['memory_gb']:.1f} GB |"
            )
    return found


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", help="a Python with torch, transformers and peft")
    parser.add_argument("--only", choices=[case.name for case in CASES])
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument(
        "--miniature", action="store_true", help="tiny models on the CPU: whether it works, not how fast"
    )
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args(argv)
    if asked.worker:
        print(json.dumps(measure_ours(from_plain(Case, json.loads(sys.stdin.read()), "the case"))))
        return 0
    if not asked.miniature and not torch.cuda.is_available():
        print(
            "bench.train_gpu: this measures a CUDA GPU, and torch finds none here\n"
            "  try: --miniature, which runs the same with tiny models on the CPU",
            file=sys.stderr,
        )
        return 2
    chosen = [case for case in CASES if asked.only in (None, case.name)]
    results = [run_case(miniature(case) if asked.miniature else case, asked.peer_python) for case in chosen]
    print("\n".join(lines(results)))
    if asked.json is not None:
        asked.json.write_text(json.dumps(results, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
