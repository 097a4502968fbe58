"""How far llama.cpp's logits of the families' GGUF files are from transformers': that they are its layout.

Run with llama-cpp-python and gguf: `PYTHONPATH=. python tests/parity/family_in_llama_cpp.py [CASE ...]`. Ends with 1 if
a case is further off than llama.cpp's own arithmetic explains (GELU from a table of halves). Windows that it leaves out
(Mistral's, Phi-3's) are compared before they reach a position.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from tests.parity.family_cases import EXPECTED_FILE, RECORDED, families, family_weights, prompts
from tests.parity.family_gguf import write_family_gguf

NOT_IN_GGUF = {"falcon_rw"}
NO_WINDOW_THERE = ("mistral", "phi3", "phi3_partial")
LIMIT = 0.01  # of the logits' deviation


def logits(path: Path, ids: NDArray[np.int32]) -> NDArray[np.float32]:
    model = llama_cpp.Llama(
        str(path), n_ctx=256, logits_all=True, verbose=False, n_threads=2, type_k=0, type_v=0, flash_attn=False
    )
    model.eval(ids.tolist())
    return np.array(model.scores[: len(ids)])


def difference(name: str, folder: Path) -> float:
    """The largest difference, in deviations of the logits."""
    case = families()[name]
    path = folder / f"{name}.gguf"
    write_family_gguf(path, case["config"], family_weights(case["shapes"]))
    expected = np.load(EXPECTED_FILE)[name]
    worst = 0.0
    for ids, rows in zip(prompts(97), expected, strict=True):
        if name == "phi3_long" and len(ids) < 64:  # its contexts have at least 256 positions: the long list for all
            continue
        seen = 3 if name in NO_WINDOW_THERE and len(ids) > 100 else len(RECORDED)
        got = logits(path, ids)[list(RECORDED)]
        worst = max(worst, float(np.abs(got - rows)[:seen].max()))
    return worst / float(np.std(expected))


if __name__ == "__main__":
    failed = False
    for case in sys.argv[1:] or [case for case in families() if case not in NOT_IN_GGUF]:
        with tempfile.TemporaryDirectory() as folder:
            off = difference(case, Path(folder))
        failed |= off > LIMIT
        print(f"{case:14} {off:.6f}{'  <-- too far' if off > LIMIT else ''}", flush=True)
    sys.exit(failed)
