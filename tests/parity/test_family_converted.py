"""Every family through `herd convert`, folder to GGUF to folder: the same logits here, and, of the very same bytes, in
transformers and llama.cpp, which `make_family_converted.py` let load them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from openherd.engine.protocols import Limits
from openherd.errors import UnsupportedError
from openherd.workshop.convert.run import convert
from openherd.workshop.golden.places import attach
from openherd.workshop.golden.record import record
from openherd.workshop.quantize.run import QuantizeOptions, run_quantize
from openherd.workshop.verify.run import golden_for, verify
from tests.parity.converted_cases import digests
from tests.parity.family_cases import EXPECTED_FILE, RECORDED, prompts
from tests.parity.family_converted_cases import CASES, EXPECTED, VOCAB, converted, source_folder
from tests.parity.family_layouts import NOT_IN_GGUF
from tests.parity.native_logits import native_logits
from tests.unit.workshop.quiet import Quiet

VALUES = json.loads(EXPECTED.read_text(encoding="utf-8"))
REFERENCE = np.load(EXPECTED_FILE)
# transformers takes LongRoPE's short list for the short prompt, and here the context asked for decides.
ONE_PROMPT = "phi3_long"


def logits(path: Path) -> np.ndarray:
    limits = Limits(max_context=256, max_seqs=2, max_batch_tokens=200, max_logit_rows=200)
    blocks = (12, 3, 9, 0, 5, 7, 1, 11, 2, 4)
    return native_logits(path, prompts(VOCAB), RECORDED, limits=limits, num_blocks=13, blocks=blocks)


@pytest.mark.parametrize("name", CASES)
def test_converted(name: str, tmp_path: Path) -> None:
    gguf, back = converted(name, tmp_path)
    assert digests(back, gguf) == VALUES[name]["sha256"], "other bytes than those that were checked: run make parity"
    count = 1 if name == ONE_PROMPT else 2
    for path in (gguf, back):
        np.testing.assert_allclose(logits(path)[:count], REFERENCE[name][:count], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_what_was_rounded_is_verified(name: str, tmp_path: Path) -> None:
    """By the names and the row orders of each family: norms that were bfloat16 once, and matrices that were blocks."""
    source = source_folder(name, tmp_path)
    attach(record(source), source)
    convert(source, tmp_path / "bf16", "safetensors", dtype="bf16")
    options = QuantizeOptions("Q8_0", threads=2)
    run_quantize(str(tmp_path / "bf16"), tmp_path / "q8.gguf", options, offline=True, progress=Quiet())
    convert(tmp_path / "q8.gguf", tmp_path / "f16", "safetensors")
    convert(tmp_path / "f16", tmp_path / "f32.gguf", "gguf", dtype="f32")
    for copy in ("bf16", "q8.gguf", "f16", "f32.gguf"):
        report = verify(tmp_path / copy, golden_for(tmp_path / copy, None))
        assert report.passed, (copy, report.findings)


@pytest.mark.parametrize("name", CASES)
def test_what_the_others_found(name: str) -> None:
    """transformers: rounding alone, of another order of sums."""
    assert VALUES[name]["transformers"]["logits_differ_by"] < 1e-4


@pytest.mark.parametrize("name", CASES)
def test_what_llama_cpp_found(name: str) -> None:
    """In deviations of the logits; more where its GELU comes from a table of halves."""
    from_table = name.startswith(("falcon", "mpt", "gemma"))
    assert VALUES[name]["llama.cpp"]["logits_differ_by"] < (1e-2 if from_table else 1e-4)


@pytest.mark.parametrize("name", sorted(NOT_IN_GGUF))
def test_what_gguf_cannot_say_is_refused(name: str, tmp_path: Path) -> None:
    source = source_folder(name, tmp_path)
    with pytest.raises(UnsupportedError):
        convert(source, tmp_path / "x.gguf", "gguf", dtype="f32", with_golden=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]
