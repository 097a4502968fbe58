"""openherd beside other programs: the same work on the same file, in turn, so that a noisy minute meets all alike.

    python -m bench.peers [--model FILE] [--only prefill_512 --only decode ...] [--python NAME=PYTHON ...] [--json OUT]

Each program runs in a process of its own with its own Python (bench/peer_workers; `make bench` makes the environments
under .peers), and all stay loaded. A round does one piece of work with each program in turn (A B C A B C), beside
the machine's limits. Reported are medians, and the ratio openherd / peer of each round: its median, least and greatest.
A program that is not installed, or cannot do a piece of work, is left out and named.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from openherd.checkpoints import open_checkpoint
from openherd.kernels.cores import usable_cores
from openherd.kernels.machine_limits import MachineLimits
from openherd.store.resolve import resolve
from openherd.workshop.bench.machine import machine_facts
from openherd.workshop.bench.roofline import ModelCost

ROOT = Path(__file__).parent.parent
WORKERS = ROOT / "bench" / "peer_workers"
PEERS_HOME = Path(os.environ.get("OPENHERD_PEERS", ROOT / ".peers"))

OURS = "openherd"
PREFILL, LONG = 512, 4096
DECODE_TOKENS, BATCH_TOKENS, LONG_TOKENS = 128, 32, 32
SETTLE_S = 0.02  # until the last program's threads have stopped spinning


@dataclass(frozen=True, slots=True)
class Peer:
    name: str
    worker: str
    environment: str  # under PEERS_HOME

    def python(self) -> Path:
        return Path(sys.executable) if self.name == OURS else PEERS_HOME / self.environment / "bin" / "python"


PEERS = (
    Peer(OURS, "openherd_worker.py", ""),
    Peer("llama.cpp", "llama_cpp_worker.py", "llama.cpp"),
    Peer("ik_llama.cpp", "llama_cpp_worker.py", "others"),
    Peer("openvino", "openvino_worker.py", "others"),
    Peer("transformers", "transformers_worker.py", "transformers"),
)

# A piece of work: the request to a worker without its prompt, and the prompt's length.
WORKS: dict[str, tuple[dict[str, Any], int]] = {
    f"prefill_{PREFILL}": ({"work": "prefill"}, PREFILL),
    "decode": ({"work": "decode", "batch": 1, "tokens": DECODE_TOKENS}, 1),
    **{
        f"decode_batch_{batch}": ({"work": "decode", "batch": batch, "tokens": BATCH_TOKENS}, batch)
        for batch in (4, 16, 32)
    },
    f"decode_at_{LONG}": ({"work": "decode_at", "tokens": LONG_TOKENS}, LONG),
}


class Worker:
    """A peer's process with its model loaded."""

    def __init__(self, peer: Peer, python: Path, model: Path, threads: int, log: Path) -> None:
        self.name = peer.name
        self._log = log.open("ab")
        command = [str(python), str(WORKERS / peer.worker), str(model), "--threads", str(threads)]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
        if peer.name == OURS:
            environment["PYTHONPATH"] = str(ROOT)
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True, env=environment
        )
        self.version = str(self._answer()["version"])

    def ask(self, request: dict[str, Any]) -> float:
        """Raises RuntimeError in the worker's words when it cannot."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise RuntimeError(f"{self.name} has ended") from None
        answer = self._answer()
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return float(answer["value"])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended with status {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def compare(
    model: Path, works: list[str], pythons: dict[str, Path], threads: int, repetitions: int, log: Path
) -> dict[str, Any]:
    """Rounds over all programs that start; the document that RESULTS.md is made of."""
    checkpoint = open_checkpoint(model)
    cost = ModelCost.of(checkpoint)
    runs: defaultdict[str, defaultdict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    left_out: dict[str, str] = {}
    random = np.random.default_rng(0)
    limits = MachineLimits(min(cost.weight_bytes, 1 << 30), [1, threads] if threads > 1 else [1])
    with ExitStack() as stack:
        workers = []
        for peer in PEERS:
            if peer.name not in pythons:
                continue
            try:
                workers.append(stack.enter_context(Worker(peer, pythons[peer.name], model, threads, log)))
            except (OSError, RuntimeError) as why:
                left_out[peer.name] = why.strerror or "" if isinstance(why, OSError) else str(why)
                say(f"{peer.name} is left out: {why}")
        for number in range(repetitions + 1):  # the first warms up and is dropped
            say(f"{model.name}: {'warming up' if number == 0 else f'round {number} of {repetitions}'}")
            for work in works:
                request, length = WORKS[work]
                ids = [int(token) for token in random.integers(0, checkpoint.config.vocab_size, length)]
                if number:
                    _sample_limits(limits, threads, runs["limits"])
                for worker in workers:
                    if f"{worker.name} {work}" in left_out:
                        continue
                    time.sleep(SETTLE_S)
                    try:
                        value = worker.ask(request | {"ids": ids})
                    except RuntimeError as why:
                        left_out[f"{worker.name} {work}"] = str(why)
                        continue
                    if number:
                        runs[work][worker.name].append(value)
        versions = {worker.name: worker.version for worker in workers}
    return {
        "model": model.name,
        "file_bytes": model.stat().st_size,
        "weight_bytes_per_token": cost.weight_bytes,
        "layer_products_per_token": cost.layer_products,
        "kv_bytes_per_token": cost.kv_bytes,
        "machine": machine_facts(threads),
        "versions": versions,
        "left_out": left_out,
        "limits": {name: summary(values) for name, values in runs.pop("limits", {}).items()},
        "works": {work: _work(by_peer) for work, by_peer in runs.items()},
    }


def _sample_limits(limits: MachineLimits, threads: int, runs: defaultdict[str, list[float]]) -> None:
    for count in sorted({1, threads}):
        runs[f"read_{count}"].append(limits.read_rate(count))
        runs[f"int8_{count}"].append(limits.multiply_rate(count))


def _work(by_peer: dict[str, list[float]]) -> dict[str, Any]:
    ours = by_peer.get(OURS, [])
    return {
        name: summary(values)
        | ({} if name == OURS or not ours else {"ratio": summary(a / b for a, b in zip(ours, values, strict=True))})
        for name, values in by_peer.items()
    }


def summary(values: Iterator[float] | list[float]) -> dict[str, float]:
    values = list(values)
    return {"median": statistics.median(values), "low": min(values), "high": max(values), "runs": len(values)}


def table(document: dict[str, Any]) -> Iterator[str]:
    for work, by_peer in document["works"].items():
        for name, figures in by_peer.items():
            line = (
                f"{work:<16} {name:<14} {figures['median']:>9,.1f} tok/s ({figures['low']:,.1f}-{figures['high']:,.1f})"
            )
            if "ratio" in figures:
                ratio = figures["ratio"]
                line += f"   openherd is {ratio['median']:.2f}x ({ratio['low']:.2f}-{ratio['high']:.2f})"
            yield line
    for name, figures in document["limits"].items():
        scale, unit = (1e9, "GB/s") if name.startswith("read") else (1e12, "T/s")
        median, low, high = (figures[key] / scale for key in ("median", "low", "high"))
        yield f"limit {name:<10} {median:>9.3f} {unit} ({low:.3f}-{high:.3f})"
    for name, why in document["left_out"].items():
        yield f"left out: {name}: {why}"


def find_pythons(given: list[str]) -> dict[str, Path]:
    """The Python of each program that is there. `given`: NAME=PATH, which may also be empty to leave one out."""
    pythons = {peer.name: peer.python() for peer in PEERS}
    for pair in given:
        name, equals, path = pair.partition("=")
        if not equals or name not in pythons:
            sys.exit(f"--python is NAME=PATH with a name of {', '.join(pythons)}, not {pair!r}")
        pythons[name] = Path(path)
    for name, path in list(pythons.items()):
        if path == Path() or not path.exists():
            if path != Path():
                say(f"{name} is left out: {path} does not exist; make bench makes it")
            del pythons[name]
    return pythons


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a file or a catalogue name; none: the default model")
    parser.add_argument("--only", action="append", choices=WORKS, help="piece of work, several times if wanted")
    parser.add_argument(
        "--python", action="append", default=[], help="NAME=PATH: a program's Python; NAME= leaves it out"
    )
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--log", type=Path, default=Path(os.devnull), help="what the programs say")
    options = parser.parse_args()
    document = compare(
        resolve(options.model),
        options.only or list(WORKS),
        find_pythons(options.python),
        options.threads,
        options.repetitions,
        options.log,
    )
    print("\n".join(table(document)))
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
