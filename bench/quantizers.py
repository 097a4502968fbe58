"""Our quantiser beside llama.cpp's: what the same model loses at the same size, and how long each takes.

    python -m bench.quantizers SOURCE.gguf TEXT --calibrate TEXT [--types Q4_0 Q4_K_M ...] [--json OUT]

SOURCE has float weights (bench/dithered_model.py makes one). Each program writes a file of each mix, without and with
an importance matrix, which is one and the same for both: ours, of the calibration text. Then each file's mean KL from
the source is measured over the text by openherd's engine, the same for both, so that only the files differ. The
difference is given with its 95 % interval over chunks, both files having read the same ones. Files of unequal size are
marked.

docs/manual/quantize.md has the table of the default model, made of two sources: as it is, and widened for the k-quants.

Times are those of the whole job, source in the page cache, both programs with the same number of threads, in turn;
the least of --repetitions. llama.cpp is the package llama-cpp-python, called through `llama_model_quantize` as
`llama-quantize` calls it; the environment variable BENCH_PACKAGES names a folder of packages to find it in.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openherd.checkpoints import open_checkpoint
from openherd.tokenizers import Tokenizer
from openherd.workshop.calibrate import CHUNK_TOKENS, calibrate, chunks_of
from openherd.workshop.divergence import Divergence, diverge
from openherd.workshop.importance import Importance, read_importance, write_importance
from openherd.workshop.model_logits import open_logits
from openherd.workshop.quantize.mixes import MIXES, find_mix
from openherd.workshop.quantize.run import QuantizeOptions, run_quantize
from openherd.workshop.quantize.source import open_source

TYPES = ["Q8_0", "Q6_K", "Q5_K_M", "Q5_1", "Q5_0", "Q4_K_M", "Q4_K_S", "Q4_1", "Q4_0", "Q3_K_M", "Q2_K"]
Quantize = Callable[[Path, str, Path | None], None]  # out, mix, importance


class Silent:
    def say(self, text: str) -> None: ...
    def advance(self, done: int, total: int) -> None: ...
    def finish(self) -> None: ...


def ours(source: Path, threads: int) -> Quantize:
    def quantize(out: Path, mix: str, importance: Path | None) -> None:
        options = QuantizeOptions(mix, importance=importance, threads=threads, overwrite=True, golden=False)
        run_quantize(str(source), out, options, offline=True, progress=Silent())

    return quantize


def llama_cpp(source: Path, threads: int) -> Quantize:
    sys.path += filter(None, [os.environ.get("BENCH_PACKAGES")])  # at the end: all else is this environment's
    import llama_cpp as api

    silent = api.llama_log_callback(lambda *_: None)
    api.llama_log_set(silent, ctypes.c_void_p())

    def quantize(out: Path, mix: str, importance: Path | None) -> None:
        params = api.llama_model_quantize_default_params()
        params.nthread, params.ftype = threads, find_mix(mix).file_type
        entries = list(_entries(api, read_importance(importance))) if importance else []
        if entries:
            params.imatrix = (api.llama_model_imatrix_data * (len(entries) + 1))(*entries)
        if api.llama_model_quantize(str(source).encode(), str(out).encode(), ctypes.byref(params)) or not silent:
            raise SystemExit(f"llama.cpp does not write {mix}")

    return quantize


def _entries(api: Any, importance: Importance) -> Iterator[Any]:
    for name, sums in importance.sums.items():
        means = (sums / importance.counts[name][:, None]).astype(np.float32).reshape(-1)
        values = (ctypes.c_float * len(means))(*means.tolist())
        yield api.llama_model_imatrix_data(name.encode(), values, len(means))


def written(quantize: Quantize, out: Path, mix: str, importance: Path | None, repetitions: int) -> float:
    """Seconds of the fastest run."""
    seconds = []
    for _ in range(repetitions):
        out.unlink(missing_ok=True)
        started = perf_counter()
        quantize(out, mix, importance)
        seconds.append(perf_counter() - started)
    return min(seconds)


@dataclass(frozen=True)
class Loss:
    """Mean KL of each chunk from the source, and the share of positions with the same top token."""

    kl: NDArray[np.float64]
    same_top: float


def measure(source: Path, files: Sequence[Path], chunks: list[list[int]], threads: int) -> list[Loss]:
    """Of each file. The source computes a chunk once for all of them."""
    found: list[list[Divergence]] = [[] for _ in files]
    with ExitStack() as stack:
        models = [stack.enter_context(open_logits(open_checkpoint(f), CHUNK_TOKENS, threads)) for f in (source, *files)]
        for chunk in chunks:
            exact = [block.copy() for block in models[0](chunk)]
            for of_file, model in zip(found, models[1:], strict=True):
                of_file.append(diverge(lambda _, exact=exact: exact, model, [chunk]))
    return [
        Loss(np.array([d.kl.mean for d in each]), float(np.mean([d.same_top.mean for d in each]))) for each in found
    ]


def compare(
    source: Path, chunks: list[list[int]], matrix: Path | None, options: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    peers = {"ours": ours(source, options.threads), "theirs": llama_cpp(source, options.threads)}
    for mix in options.types:
        with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
            rows, files = [], []
            for importance in dict.fromkeys((None, matrix)):
                row: dict[str, Any] = {"mix": mix, "importance": importance is not None}
                for name, quantize in peers.items():
                    files.append(Path(folder) / f"{name}-{importance is not None}.gguf")
                    row[f"{name}_s"] = written(quantize, files[-1], mix, importance, options.repetitions)
                    row[f"{name}_bytes"] = sum(tensor.nbytes for tensor in open_source(files[-1]).tensors)
                rows.append(row)
            losses = iter(measure(source, files, chunks, options.threads))
            for row in rows:
                kl = {}
                for name in peers:
                    loss = next(losses)
                    kl[name], row[f"{name}_kl"], row[f"{name}_same_top"] = loss.kl, float(loss.kl.mean()), loss.same_top
                difference = kl["ours"] - kl["theirs"]
                row["difference"] = float(difference.mean())
                row["difference_interval"] = 1.96 * float(difference.std(ddof=1)) / len(difference) ** 0.5
                yield row


def line(row: dict[str, Any]) -> str:
    size = (
        ""
        if row["ours_bytes"] == row["theirs_bytes"]
        else f"  sizes differ: {row['ours_bytes'] / row['theirs_bytes']:.3f}"
    )
    return (
        f"{row['mix']:7} {'with' if row['importance'] else '    '} {row['ours_bytes'] / 1e6:7.1f} MB"
        f"  KL {row['ours_kl']:.5f} {row['theirs_kl']:.5f} ratio {row['ours_kl'] / row['theirs_kl']:.3f}"
        f"  difference {row['difference']:+.5f} +- {row['difference_interval']:.5f}"
        f"  top {row['ours_same_top']:.2%} {row['theirs_same_top']:.2%}"
        f"  {row['ours_s']:.2f} s {row['theirs_s']:.2f} s{size}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("text", type=Path)
    importance = parser.add_mutually_exclusive_group()
    importance.add_argument("--calibrate", type=Path, help="text for the importance matrix; none: without only")
    importance.add_argument(
        "--importance", type=Path, help="a matrix that is there already (herd quantize --importance)"
    )
    parser.add_argument("--types", nargs="+", choices=MIXES, default=TYPES)
    parser.add_argument("--tokens", type=int, default=8192, help="of the text")
    parser.add_argument("--repetitions", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--scratch", type=Path, help="folder for the files")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    source = open_source(options.source)
    ids = Tokenizer(source.checkpoint.tokenizer).encode(options.text.read_text())[: options.tokens]
    chunks = [list(chunk) for chunk in chunks_of(ids, CHUNK_TOKENS, options.tokens)]
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        matrix = options.importance
        if options.calibrate:
            weights = {tensor.name: tensor.shape for tensor in source.tensors if len(tensor.shape) > 1}
            text = options.calibrate.read_text()
            matrix = Path(folder) / "importance.gguf"
            write_importance(matrix, calibrate(options.source, text, options.calibrate.name, weights))
        print(f"{len(chunks)} chunks of {CHUNK_TOKENS} tokens; each pair: ours, llama.cpp")
        rows = []
        for row in compare(options.source, chunks, matrix, options):
            rows.append(row)
            print(line(row), flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
