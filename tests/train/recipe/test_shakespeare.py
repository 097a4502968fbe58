"""T13: nanoGPT's budget for characters of Shakespeare, beside a plain PyTorch loop."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
import torch

from bench.shakespeare_char import LEARNING_RATE, compare
from tests.train.recipe.conftest import TEXT

FULL = os.environ.get("OPENHERD_FULL_TESTS") == "1"
SHAKESPEARE = os.environ.get("OPENHERD_SHAKESPEARE", "")
"""The text of Shakespeare that nanoGPT trains on, input.txt, which is not shipped."""


def test_t13_a_short_run_learns_as_fast_as_the_plain_loop(tmp_path: Path) -> None:
    """Twenty steps on the shipped text: both begin as a guess, among 261 tokens and among the letters of the text, and
    ours falls further."""
    text, threads = TEXT.read_text(encoding="utf-8"), torch.get_num_threads()
    try:
        found = compare(text, 20, 1, LEARNING_RATE, tmp_path)
    finally:
        torch.set_num_threads(threads)
    ours, plain = found["ours"], found["plain"]
    assert ours["parameters"] <= plain["parameters"]
    assert math.log(261) - ours["loss"] > math.log(len(set(text))) - plain["loss"] > 0.5


@pytest.mark.skipif(not (FULL and SHAKESPEARE), reason="minutes of computing, with OPENHERD_SHAKESPEARE=input.txt")
def test_t13_two_thousand_steps_reach_nanogpts_loss_in_no_more_time(tmp_path: Path) -> None:
    """On one thread: the work itself. What two threads hand each other in so small a model is noise of the machine, and
    docs/experiments-train.md has it."""
    text, threads = Path(SHAKESPEARE).read_text(encoding="utf-8"), torch.get_num_threads()
    try:
        found = compare(text, 2000, 1, LEARNING_RATE, tmp_path)
    finally:
        torch.set_num_threads(threads)
    assert found["ours"]["loss"] <= 1.88
    assert found["time_of_plain"] <= 1.0
