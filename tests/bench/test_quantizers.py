"""The float model that quantisers are measured on, and the line in which two are compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.dithered_model import write_dithered
from bench.quantizers import line
from openherd.checkpoints.gguf_header import read_header
from openherd.quant.dequantize import dequantize
from tests.checkpoint_files import tiny_llama


def test_every_weight_moves_within_its_step(tmp_path: Path) -> None:
    source, out, again = (tmp_path / f"{name}.gguf" for name in ("source", "out", "again"))
    source.write_bytes(tiny_llama(linear_type="Q4_1").build())
    write_dithered(source, out)
    write_dithered(source, again)
    assert out.read_bytes() == again.read_bytes()
    before, after = read_header(source), read_header(out)
    assert before.tensors.keys() == after.tensors.keys()
    for name, info in before.tensors.items():
        was = dequantize(info.rows(before.data), info.type)
        now = dequantize(after.tensors[name].rows(after.data), after.tensors[name].type)
        assert after.tensors[name].type.name == "F32"
        if info.type.name != "Q4_1":
            np.testing.assert_array_equal(now, was)
            continue
        step = info.rows(before.data).reshape(-1, 20)[:, :2].copy().view("<f2").astype(np.float32)
        moved = ((now - was).reshape(-1, 32)) / step
        assert np.abs(moved).max() <= 0.501
        assert moved.std() == pytest.approx(12**-0.5, rel=0.1)  # even over the step


def test_a_line_marks_files_of_unequal_size() -> None:
    row = {"mix": "Q4_0", "importance": True, "difference": -0.001, "difference_interval": 0.0005}
    for name, kl, size in (("ours", 0.01, 1_000_000), ("theirs", 0.011, 1_000_000)):
        row |= {f"{name}_kl": kl, f"{name}_bytes": size, f"{name}_same_top": 0.9, f"{name}_s": 1.0}
    assert "ratio 0.909" in line(row)
    assert "sizes differ" not in line(row)
    assert "sizes differ: 0.500" in line(row | {"theirs_bytes": 2_000_000})
