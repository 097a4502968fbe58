"""What `herd convert` writes is, byte for byte, what transformers and llama.cpp loaded; they found the same numbers.

`make_converted.py` let them; here the same bytes must come out again, and give the same logits.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from openherd.engine.protocols import Limits
from openherd.workshop.golden.record import record
from openherd.workshop.verify.run import verify
from tests.parity.converted_cases import BY_LLAMA_CPP, CASES, EXPECTED, LLAMA_CPP, converted, digests
from tests.parity.native_logits import native_logits
from tests.parity.reader_cases import FOLDER, MODELS, RECORDED, prompts

VALUES = json.loads(EXPECTED.read_text(encoding="utf-8"))
REFERENCE = np.load(FOLDER / "logits.npz")


def logits(path: Path) -> np.ndarray:
    limits = Limits(max_context=64, max_seqs=2, max_batch_tokens=64, max_logit_rows=64)
    return native_logits(path, prompts(), RECORDED, limits=limits, num_blocks=8, blocks=(7, 2, 5))


@pytest.mark.parametrize("case", CASES)
def test_converted(case: str, tmp_path: Path) -> None:
    hf, gguf = converted(case, tmp_path)
    assert digests(hf, gguf) == VALUES[case]["sha256"], "other bytes than those that were checked: run make parity"
    for path in (hf, gguf):
        np.testing.assert_allclose(logits(path), REFERENCE[MODELS[case]], rtol=0, atol=1e-4)


@pytest.mark.parametrize("program", ["transformers", "llama.cpp"])
@pytest.mark.parametrize("case", CASES)
def test_what_the_others_found(case: str, program: str) -> None:
    """Float32 throughout: their logits differ from transformers' own of the original by rounding alone."""
    found = VALUES[case][program]
    assert found["logits_differ_by"] < (1e-5 if program == "transformers" else 1e-4)
    assert found["strings_with_other_ids"] == 0


def test_a_file_of_llama_cpps_own_converter(tmp_path: Path) -> None:
    """Made from our folder: it loads here, with the same logits, and the source's golden values hold for it."""
    theirs = LLAMA_CPP / f"{BY_LLAMA_CPP}.gguf"
    np.testing.assert_allclose(logits(theirs), REFERENCE[MODELS[BY_LLAMA_CPP]], rtol=0, atol=1e-4)
    report = verify(theirs, record(FOLDER / BY_LLAMA_CPP))
    assert report.passed, report.findings
