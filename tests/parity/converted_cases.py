"""Small checkpoints converted by `herd convert`, and what other programs computed from the very same bytes."""

from __future__ import annotations

import hashlib
from pathlib import Path

from openherd.workshop.convert.run import convert
from tests.parity.reader_cases import FOLDER

EXPECTED = Path(__file__).with_name("converted.json")
LLAMA_CPP = Path(__file__).with_name("llama_cpp_converted")
CASES = ("llama1-meta", "llama2-meta", "llama3-meta", "llama3-hf")
BY_LLAMA_CPP = "llama2-meta"  # whose folder llama.cpp's own converter has converted


def converted(case: str, folder: Path) -> tuple[Path, Path]:
    """(a Hugging Face folder, a GGUF file), both in float32, of a reader's case."""
    hf, gguf = folder / f"{case}-hf", folder / f"{case}.gguf"
    convert(FOLDER / case, hf, "safetensors", dtype="f32", with_golden=False)
    convert(FOLDER / case, gguf, "gguf", dtype="f32", with_golden=False)
    return hf, gguf


def digests(hf: Path, gguf: Path) -> dict[str, str]:
    """Of everything that was written."""
    files = [*sorted(path for path in hf.iterdir() if path.is_file()), gguf]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
