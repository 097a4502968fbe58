"""herd train run: from flags or a recipe to a run's folder, going on, and refusing."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from openherd.cli.app import PARTS
from openherd.cli.train import PARTS as REGISTERED
from openherd.train.recipe_file import load_recipe
from openherd.train.token_file import TOKENS
from tests.train.recipe.conftest import Prepared, tiny


def test_a_run_leaves_its_recipe_log_and_report_and_goes_on(prepared: Prepared, herd: Any, tmp_path: Path) -> None:
    out = tmp_path / "run"
    flags = tiny(prepared, out, "--evaluation", prepared.held_out, "--no-forecast")
    first = herd("run", *flags)
    assert first.status == 0, first.err
    assert "6 steps done; best evaluation loss" in first.out
    assert re.search(r"step 6/6  loss \d.*tokens/s  \d+ % of peak  ", first.err)
    assert str(out / "report.html") in first.out
    for name in ("recipe.toml", "log.jsonl", "loss.svg", "report.html", "model.json", "checkpoints"):
        assert (out / name).exists(), name
    kept = load_recipe(out / "recipe.toml")
    assert (kept.run.steps, kept.run.dtype, kept.model.ffn_dim) == (6, "float32", 128)
    again = herd("run", out / "recipe.toml", "--no-forecast", "--json")
    document = json.loads(again.out)
    assert (again.status, document["step"], document["finished"]) == (0, 6, True)
    assert "going on in" in again.err
    other = herd("run", *flags, "--seed", 5)
    assert other.status == 2
    assert "run.seed: 0 before, 5 now" in " ".join(other.err.split())


def test_t6_data_that_changed_since_it_was_prepared_is_refused(prepared: Prepared, herd: Any, tmp_path: Path) -> None:
    """Into another token of the vocabulary, which only the sum tells; before a first run as when one goes on."""
    data = tmp_path / "data"
    shutil.copytree(prepared.train, data)
    flags = tiny(replace(prepared, train=data), tmp_path / "run", "--no-forecast")
    assert herd("run", *flags).status == 0
    tokens = np.memmap(data / TOKENS, "<i4", "r+")
    tokens[7] ^= 1
    tokens.flush()
    for out in ("run", "other"):
        refused = herd("run", *tiny(replace(prepared, train=data), tmp_path / out, "--no-forecast"))
        assert refused.status == 2
        assert "tokens.bin has changed since it was prepared" in " ".join(refused.err.split())


def test_a_recipe_file_and_flags_together(prepared: Prepared, herd: Any, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text(
        f"""
[model]
tokenizer = "{prepared.vocabulary}"
n_layers = 1
dim = 32
n_heads = 2
max_seq_len = 32
[data]
train = ["{prepared.train}"]
[run]
out = "beside"
steps = 50
rows_per_step = 2
threads = 1
device = "cpu"
"""
    )
    done = herd("run", recipe, "--steps", 1, "--no-forecast", "--json")
    assert done.status == 0, done.err
    assert json.loads(done.out)["step"] == 1
    assert (tmp_path / "beside" / "report.html").is_file(), "a recipe's paths lie beside it"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--learning-rate", "-1"], "--learning-rate must be a number from 0 to 10"),
        (["--steps", "1.5"], "--steps must be a whole number"),
        (["--schedule", "linear"], "linear"),
        (["--stepz", "3"], "--stepz"),
        (["--price", "-3"], "--price must be a number of at least 0"),
        (["--objective", "dpo"], "objective dpo starts from a model"),
        (["--rank", "4"], "lora.rank adapts a model that is there"),
        (["--train", "/nowhere"], "holds no prepared data"),
    ],
)
def test_refusals_are_said_before_anything_is_begun(
    prepared: Prepared, herd: Any, tmp_path: Path, more: list[str], message: str
) -> None:
    done = herd("run", *tiny(prepared, tmp_path / "run", *more))
    assert done.status == 2
    assert message in done.err
    assert not (tmp_path / "run").exists()


def test_without_torch_it_says_what_to_install(
    prepared: Prepared, herd: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openherd.cli.train.needs.find_spec", lambda name: None)
    for part in ("run", "estimate"):
        done = herd(part, *tiny(prepared, tmp_path / "run"))
        assert (done.status, "pip install 'openherd[train]'" in done.err) == (1, True)


def test_opening_ingredients_and_help_load_no_torch() -> None:
    program = "import sys, openherd.train.ingredients, openherd.cli.train.run; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_every_part_is_known_to_the_table_of_verbs() -> None:
    assert PARTS["train"] == tuple(REGISTERED)
