"""Let transformers and llama.cpp load what `herd convert` writes, and llama.cpp's own converter write from it.

Run in an environment with torch, transformers, llama_cpp and gguf, from the repository's root, with llama.cpp's
convert_hf_to_gguf.py as argument (without it the files that it made are left as they are):
    PYTHONPATH=. python tests/parity/make_converted.py [CONVERTER]
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import torch
from llama_cpp import Llama
from transformers import AutoModelForCausalLM, AutoTokenizer

from openherd.checkpoints import open_checkpoint
from openherd.tokenizers import Tokenizer
from tests.parity.converted_cases import BY_LLAMA_CPP, CASES, EXPECTED, LLAMA_CPP, converted, digests
from tests.parity.reader_cases import FOLDER, MODELS, RECORDED, prompts, strings

REFERENCE = np.load(FOLDER / "logits.npz")


def transformers_logits(folder: Path) -> np.ndarray:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    with torch.inference_mode():
        rows = [model(torch.from_numpy(ids.astype(np.int64))[None]).logits[0] for ids in prompts()]
    return np.stack([row[list(RECORDED)].numpy() for row in rows])


def llama_cpp_logits(model: Llama) -> np.ndarray:
    rows = []
    for ids in prompts():
        model.reset()
        model.eval(ids.tolist())
        got = np.array(model.scores[: len(ids)])
        rows.append(got[list(RECORDED)])
    return np.stack(rows)


def different_ids(tokenizer: Tokenizer, other: Any, *, special: bool) -> int:
    """Strings whose ids are not the other tokenizer's."""
    return sum(tokenizer.encode(text, add_bos=False, special=special) != list(other(text)) for text in strings()[::3])


def measured(case: str, folder: Path, converter: str | None) -> dict[str, Any]:
    hf, gguf = converted(case, folder)
    reference = REFERENCE[MODELS[case]]
    ours = Tokenizer(open_checkpoint(hf).tokenizer)
    theirs = AutoTokenizer.from_pretrained(hf)
    model = Llama(str(gguf), n_ctx=64, logits_all=True, verbose=False, n_threads=1, type_k=0, type_v=0)
    if converter is not None and case == BY_LLAMA_CPP:
        LLAMA_CPP.mkdir(exist_ok=True)
        out = LLAMA_CPP / f"{case}.gguf"
        subprocess.run([sys.executable, converter, str(hf), "--outtype", "f32", "--outfile", str(out)], check=True)
    return {
        "sha256": digests(hf, gguf),
        "transformers": {
            "logits_differ_by": float(np.abs(transformers_logits(hf) - reference).max()),
            "strings_with_other_ids": different_ids(
                ours, lambda text: theirs(text, add_special_tokens=False).input_ids, special=True
            ),
        },
        "llama.cpp": {
            "version": llama_cpp.__version__,
            "logits_differ_by": float(np.abs(llama_cpp_logits(model) - reference).max()),
            "strings_with_other_ids": different_ids(
                Tokenizer(open_checkpoint(gguf).tokenizer),
                lambda text: model.tokenize(text.encode(), add_bos=False, special=True),
                special=True,
            ),
        },
    }


def main(converter: str | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        values = {case: measured(case, Path(folder), converter) for case in CASES}
    EXPECTED.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
