"""What the quantised path costs in quality: mean KL divergence of its next-token distributions from float32's.

    python -m bench.kl MODEL.gguf TEXT [--llama-cpp]

Float32 is the same file's weights dequantised, computed by the native core with an f32 cache (held to transformers by
tests/parity). The text's first 60,000 bytes are cut into chunks of 512 tokens, every position of which counts.
With --llama-cpp, llama.cpp (the package llama-cpp-python) computes the same chunks of the same file beside it; the
environment variable BENCH_PACKAGES names a folder of packages to find it in.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from openherd.checkpoints import open_checkpoint
from openherd.checkpoints.source import Checkpoint, TensorSource
from openherd.engine.native_backend import NativeBackend
from openherd.engine.protocols import BLOCK_LEN, KVSpec, Limits
from openherd.kernels.reference_sampler import log_softmax
from openherd.tokenizers.tokenizer import Tokenizer
from tests.parity.batches import Rows, token_batch
from tests.parity.float_weights import FloatWeights

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Logits = Callable[[list[int]], F32]  # of every position of a chunk, [T, V]
ROWS = 64  # rows compared at a time: two float64 arrays of 64 x V stay small


def native(checkpoint: Checkpoint, weights: TensorSource, kv: KVSpec, context: int, threads: int | None) -> Logits:
    backend = NativeBackend(threads)
    limits = Limits(max_context=context, max_seqs=1, max_batch_tokens=context, max_logit_rows=context)
    blocks = tuple(range(-(-context // BLOCK_LEN)))
    backend.load(checkpoint.config, weights, kv, limits, num_blocks=len(blocks))
    return lambda ids: backend.logits(backend.forward(token_batch([Rows(ids, 0, blocks)])))


def llama_cpp(model: Path, context: int, threads: int | None) -> Logits:
    sys.path += filter(None, [os.environ.get("BENCH_PACKAGES")])  # at the end: all else is this environment's
    from llama_cpp import Llama

    llama = Llama(
        str(model),
        n_ctx=context,
        n_batch=context,
        n_threads=threads,
        n_threads_batch=threads,
        logits_all=True,
        verbose=False,
    )

    # It sets the registers of a matrix unit (AMX) up once for a thread, and dies where another library does so as well.
    thread = ThreadPoolExecutor(1, "llama.cpp")

    def logits(ids: list[int]) -> F32:
        llama.reset()
        llama.eval(ids)
        return np.array(llama.scores[: len(ids)], np.float32)

    return lambda ids: thread.submit(logits, ids).result()


def divergence(exact: F32, approximate: F32) -> tuple[F64, NDArray[np.bool_]]:
    """Of each row: KL(exact || approximate) in nats, and whether both have the same top token."""
    kl = []
    for start in range(0, len(exact), ROWS):
        p, q = log_softmax(exact[start : start + ROWS]), log_softmax(approximate[start : start + ROWS])
        kl.append(np.sum(np.exp(p) * (p - q), axis=-1))
    return np.concatenate(kl), exact.argmax(axis=-1) == approximate.argmax(axis=-1)


def measure(exact: Logits, paths: dict[str, Logits], chunks: list[list[int]]) -> dict[str, dict[str, float]]:
    """Mean KL, its standard error over chunks, and the share of positions with the same top token, of each path."""
    kl: dict[str, list[F64]] = {name: [] for name in paths}
    same: dict[str, list[NDArray[np.bool_]]] = {name: [] for name in paths}
    for chunk in chunks:
        wanted = exact(chunk).copy()
        for name, path in paths.items():
            chunk_kl, chunk_same = divergence(wanted, path(chunk))
            kl[name].append(chunk_kl)
            same[name].append(chunk_same)
    return {
        name: {
            "positions": sum(map(len, kl[name])),
            "mean_kl": float(np.concatenate(kl[name]).mean()),
            "mean_kl_error": float(np.std([k.mean() for k in kl[name]]) / np.sqrt(len(chunks))),
            "same_top": float(np.concatenate(same[name]).mean()),
        }
        for name in paths
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--bytes", type=int, default=60_000, help="how much of the text")
    parser.add_argument("--context", type=int, default=512, help="tokens in a chunk")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--llama-cpp", action="store_true", help="measure llama.cpp too")
    options = parser.parse_args()

    checkpoint = open_checkpoint(options.model)
    text = options.text.read_bytes()[: options.bytes].decode("utf-8", errors="ignore")
    ids = Tokenizer(checkpoint.tokenizer).encode(text)
    chunks = [ids[start : start + options.context] for start in range(0, len(ids), options.context)]
    exact = native(checkpoint, FloatWeights(checkpoint.tensors), KVSpec("f32"), options.context, options.threads)
    paths = {"native": native(checkpoint, checkpoint.tensors, KVSpec(), options.context, options.threads)}
    if options.llama_cpp:
        paths["llama.cpp"] = llama_cpp(options.model, options.context, options.threads)
    figures: dict[str, object] = dict(measured := measure(exact, paths, chunks))
    if options.llama_cpp:
        figures["kl_ratio"] = measured["native"]["mean_kl"] / measured["llama.cpp"]["mean_kl"]
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
