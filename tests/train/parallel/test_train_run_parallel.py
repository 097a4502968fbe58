"""herd train run in two processes, by the command itself: every kind of weights, evaluation, samples, export."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from openherd.cli import main
from tests.train.export import small_runs

pytestmark = pytest.mark.skipif(
    not os.environ.get("OPENHERD_FULL_TESTS"), reason="make test-train: a minute of CPU each"
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and data for it."""
    folder = tmp_path_factory.mktemp("data")
    small_runs.export_folder(str(folder / "base"))
    for name in ("train", "held-out"):
        (folder / f"{name}.txt").write_text(small_runs.STORY)
        prepare = ["train", "prepare", str(folder / f"{name}.txt"), "--model", str(folder / "base")]
        assert main([*prepare, "--out", str(folder / name)]) == 0
    return folder


@pytest.mark.parametrize(
    "flags",
    [
        (),
        ("--dtype", "bfloat16", "--activation-checkpointing"),
        ("--rank", "4"),
        ("--rank", "4", "--dtype", "bfloat16"),
        ("--rank", "4", "--base-type", "q8_0"),
        ("--tensor-parallel", "2"),
    ],
    ids=lambda flags: " ".join(flags) or "plain",
)
def test_two_processes_train_evaluate_sample_and_save(flags: tuple[str, ...], data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shape = ("--seq-len", "32", "--rows-per-step", "4", "--micro-rows", "2", "--eval-every", "2", "--sample-every", "2")
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "openherd", "train", "run",
        "--objective", "sft", "--init", str(data / "base"), "--train", str(data / "train"), "--evaluation",
        str(data / "held-out"), *shape, "--device", "cpu", "--threads", "1", "--no-forecast", "--out", str(out),
        "--checkpoint-every", "2", *flags,
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for steps in ("4", "4"):  # the second finds a run that is done
        done = subprocess.run(
            [*command, "--steps", steps], env=environment, capture_output=True, text=True, timeout=500, check=False
        )
        assert done.returncode == 0, done.stderr[-4000:]
    assert (out / "log.jsonl").read_text().count('"sample"') > 0
    assert len(list((out / "checkpoints" / "step-00000004" / "model").glob("*.safetensors"))) == 2
    assert main(["train", "export", str(out), str(tmp_path / "model.gguf"), "--type", "f32", "--threads", "1"]) == 0
