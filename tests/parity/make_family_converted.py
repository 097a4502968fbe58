"""Let transformers and llama.cpp load what `herd convert` makes of every family, and write down what they computed.

Run from the repository's root with transformers and torch, or with llama_cpp, or with both; what the other program
found before stays, as long as it is of the same bytes:
    PYTHONPATH=. python tests/parity/make_family_converted.py [CASE ...]
"""

from __future__ import annotations

import json
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from tests.parity.converted_cases import digests
from tests.parity.family_cases import EXPECTED_FILE, RECORDED, families, prompts
from tests.parity.family_converted_cases import CASES, EXPECTED, VOCAB, converted

REFERENCE = np.load(EXPECTED_FILE)
# Windows that llama.cpp leaves out; positions before them are compared.
NO_WINDOW_THERE = ("mistral", "phi3", "phi3_partial")


def in_transformers(name: str, folder: Path) -> dict[str, Any]:
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    with torch.inference_mode():
        ids = [torch.from_numpy(prompt.astype(np.int64))[None] for prompt in prompts(VOCAB)]
        rows = [model(prompt, use_cache=False).logits[0][list(RECORDED)].numpy() for prompt in ids]
    kind = families()[name]["config"]["architectures"]
    assert [type(model).__name__] == kind, (type(model).__name__, kind)
    return {
        "version": transformers.__version__,
        "logits_differ_by": float(np.abs(np.stack(rows) - REFERENCE[name]).max()),
    }


def in_llama_cpp(name: str, file: Path) -> dict[str, Any]:
    """Differences in deviations of the logits: its arithmetic is its own (GELU comes from a table of halves)."""
    import llama_cpp

    worst = 0.0
    for ids, expected in zip(prompts(VOCAB), REFERENCE[name], strict=True):
        if name == "phi3_long" and len(ids) < 64:  # its contexts have at least 256 positions: the long list for all
            continue
        model = llama_cpp.Llama(
            str(file), n_ctx=256, logits_all=True, verbose=False, n_threads=1, type_k=0, type_v=0, flash_attn=False
        )
        model.eval(ids.tolist())
        seen = 3 if name in NO_WINDOW_THERE and len(ids) > 100 else len(RECORDED)
        got = np.array(model.scores[: len(ids)])[list(RECORDED)]
        worst = max(worst, float(np.abs(got - expected)[:seen].max()))
    deviation = float(np.std(REFERENCE[name]))
    return {"version": llama_cpp.__version__, "logits_differ_by": worst / deviation}


def main(names: list[str]) -> None:
    values = json.loads(EXPECTED.read_text(encoding="utf-8")) if EXPECTED.exists() else {}
    for name in names:  # each is written at once: an error in one loses no other
        with tempfile.TemporaryDirectory() as folder:
            gguf, back = converted(name, Path(folder))
            sums = digests(back, gguf)
            found = values.get(name, {}) if values.get(name, {}).get("sha256") == sums else {}
            found["sha256"] = sums
            if find_spec("transformers"):
                found["transformers"] = in_transformers(name, back)
            if find_spec("llama_cpp"):
                found["llama.cpp"] = in_llama_cpp(name, gguf)
        values[name] = found
        ordered = {case: values[case] for case in CASES if case in values}
        EXPECTED.write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")
        print(name, {key: value for key, value in found.items() if key != "sha256"}, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or CASES)
