"""The measurement of training on a GPU, in miniature on the CPU."""

from __future__ import annotations

import pytest
import torch

from bench import train_gpu


@pytest.mark.parametrize("case", train_gpu.CASES, ids=lambda case: case.name)
def test_a_miniature_run_trains_and_is_measured(case: train_gpu.Case) -> None:
    small = train_gpu.miniature(case)
    measured = train_gpu.measure_ours(small)
    assert len(measured["seconds"]) == small.timed
    assert 3.5 < measured["loss"] < 5, "64 equally likely tokens are ln 64 = 4.16 nats"
    found = train_gpu.figures(small, measured, measured["peak_flops"])
    assert found["tokens_per_s"] > 0
    assert 0 < found["utilisation"] < 1
    table = train_gpu.lines([{"case": small.name, "peak_tflops": 1.0, "openherd": found}])
    assert "not measured (--peer-python)" in table[-1]


def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert train_gpu.main([]) == 2
    said = capsys.readouterr()
    assert "torch finds none here" in said.err
    assert said.out == ""


def test_the_work_of_a_token_is_that_of_the_models_shape() -> None:
    """Six times the weights that a token meets, and attention; two thirds of it where weights are frozen."""
    pretrain, lora = (case.recipe for case in train_gpu.CASES)
    one, eight = (
        train_gpu.flops_per_token(recipe, case.config)
        for recipe, case in zip((pretrain, lora), train_gpu.CASES, strict=True)
    )
    assert one == pytest.approx(6 * 1.236e9 + 3 * 2 * 2 * 16 * 2048 * 4096 / 2, rel=0.01)
    assert eight == pytest.approx(4 * 7.505e9 + 3 * 2 * 2 * 32 * 4096 * 2048 / 2, rel=0.01)
