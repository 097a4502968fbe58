"""T5: a step that is no number or leaps changes nothing; three in a row go back and past the data."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from openherd.errors import HerdError
from openherd.train.checkpoint import FOLDER, MODEL, name_of
from openherd.train.guard import ENOUGH, Guard
from openherd.train.loop import Trainer
from openherd.train.saved_tensors import read_tensors
from tests.train.loop.small_run import digests, events, log_of, recipe_of, trainer


def spoil(made: Trainer, steps: set[int], how: Callable[[Any], Any]) -> None:
    loss = made.objective.loss

    def spoilt(*arguments: Any) -> Any:
        part = loss(*arguments)
        if made.state.step not in steps:
            return part
        if how is infinite:
            part.loss.register_hook(how)
            return part
        return replace(part, loss=how(part.loss))

    made.objective.loss = spoilt  # type: ignore[method-assign]


def infinite(grad: torch.Tensor) -> torch.Tensor:
    return grad * math.inf


def no_number(loss: torch.Tensor) -> torch.Tensor:
    return loss * math.nan


def leaping(loss: torch.Tensor) -> torch.Tensor:
    return loss * 100


@pytest.mark.parametrize(
    ("how", "reason"), [(no_number, "the loss is nan"), (infinite, "the gradient's norm is"), (leaping, "leapt to")]
)
def test_t5_a_bad_step_changes_nothing(how: Callable[[Any], Any], reason: str, data: Path, tmp_path: Path) -> None:
    made = trainer(recipe_of(tmp_path, data, steps=8, checkpoint_every=100, eval_every=100, sample_every=100))
    spoil(made, {5}, how)
    seen: dict[int, dict[str, str]] = {}
    made.state.guard = Guard(losses=(4.0,) * ENOUGH)
    made.progress = lambda step, metrics: seen.update({step: digests(made)})
    made.run()
    for part in ("weights", "moments", "updates"):
        assert seen[6][part] == seen[5][part]
        assert seen[7][part] != seen[6][part] != seen[4][part]
    (skip,) = events(tmp_path, "skip")
    assert skip["step"] == 6
    assert reason in skip["reason"]
    assert (made.state.step, made.state.updates) == (8, 7)
    assert not events(tmp_path, "rollback")


def test_t5_three_in_a_row_go_back_and_past_the_data(data: Path, tmp_path: Path) -> None:
    made = trainer(recipe_of(tmp_path, data, steps=12, eval_every=100, sample_every=100, keep=9))
    spoil(made, {5, 6, 7}, no_number)
    seen: list[int] = []
    batches = made.objective.micro_batches
    made.objective.micro_batches = lambda step, *rest: seen.append(step) or batches(step, *rest)  # type: ignore
    weights: dict[int, dict[str, torch.Tensor]] = {}
    load = made._load

    def loading(folder: Path) -> Any:
        saved = load(folder)
        weights[made.state.step] = {name: value.clone() for name, value in made._weights().items()}
        return saved

    made._load = loading  # type: ignore[method-assign]
    made.run()
    assert seen == list(range(12))  # no data twice
    assert [event["step"] for event in events(tmp_path, "skip")] == [6, 7, 8]
    (rollback,) = events(tmp_path, "rollback")
    assert (rollback["step"], rollback["to"]) == (8, 4)
    at_4 = {name: torch.empty_like(value) for name, value in weights[8].items()}
    read_tensors(tmp_path / FOLDER / name_of(4) / MODEL, at_4)
    assert all(bool((at_4[name] == value).all()) for name, value in weights[8].items())
    assert (made.state.step, made.state.updates) == (12, 4 + 4)  # four before step 4, four from step 8 on


def test_t5_training_that_does_not_recover_ends(data: Path, tmp_path: Path) -> None:
    made = trainer(recipe_of(tmp_path, data, steps=50, checkpoint_every=100, eval_every=100, sample_every=100))
    spoil(made, set(range(2, 50)), no_number)
    with pytest.raises(HerdError, match=r"does not recover: up to step 11 the loss is nan(.|\n)*learning_rate"):
        made.run()
    assert len(events(tmp_path, "rollback")) == 3


def test_weights_that_were_saved_with_their_fault_are_passed_over_and_good_ones_kept(
    data: Path, tmp_path: Path
) -> None:
    made = trainer(recipe_of(tmp_path, data, steps=16, checkpoint_every=2, keep=2, eval_every=100, sample_every=100))
    made.evaluation = None
    update = made.adamw.update

    def failing(*arguments: Any) -> None:
        update(*arguments)
        if made.state.step == 5:  # no loss shows it before step 6 is saved
            next(iter(made.adamw.parameters.values())).data.fill_(math.nan)

    made.adamw.update = failing  # type: ignore[method-assign]
    made.run()
    assert [(event["step"], event["to"]) for event in events(tmp_path, "rollback")] == [(9, 6), (12, 4)]
    assert [event["step"] for event in events(tmp_path, "checkpoint")] == [0, 2, 4, 6, 13, 14, 16]
    assert (made.state.step, made.state.updates) == (16, 4 + 4)


def test_the_loss_that_a_leap_is_held_against() -> None:
    guard = Guard()
    for _ in range(ENOUGH):
        assert guard.fault(1e9, 1.0, spike_factor=3.0) is None  # nothing is known yet
        guard.accept(5.0)
    assert guard.fault(14.9, 1.0, 3.0) is None
    assert guard.fault(15.1, 1.0, 3.0) is not None
    assert guard.fault(15.1, 1.0, 0.0) is None
    assert Guard(losses=(0.01,) * 64).fault(2.9, 1.0, 3.0) is None  # below a nat leaps are no harm
    assert guard.fault(-math.inf, 1.0, 0.0) is not None
    assert guard.fault(1.0, math.nan, 0.0) is not None


def test_null_in_the_log_for_what_is_no_number(data: Path, tmp_path: Path) -> None:
    made = trainer(recipe_of(tmp_path, data, steps=2, eval_every=100, sample_every=100))
    spoil(made, {0}, no_number)
    made.run()
    assert [line["loss"] is None for line in log_of(tmp_path) if "event" not in line] == [True, False]
