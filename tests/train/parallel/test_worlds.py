"""The same training in a world of one and of two gloo processes: gradients, sums, checkpoints read by the other (T8)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from openherd.train.parallel.world import World
from tests.train.parallel import worlds
from tests.train.parallel.processes import together

HERE = "tests.train.parallel.worlds"


def read(folder: Path) -> dict[str, Tensor]:
    """Everything in a folder of tensors, as one process reads it."""
    from safetensors import safe_open

    shapes = {}
    for file in folder.glob("*.safetensors"):
        with safe_open(str(file), "pt") as opened:
            shapes |= {name: None for name in opened.keys()}  # noqa: SIM118
    model = worlds.new_model(World.single()).state_dict()
    names = {name: name.split(".", 1)[1] if name.startswith("exp_") else name for name in shapes}
    tensors = {name: torch.zeros_like(model[of]) for name, of in names.items()}
    World.single().load_tensors(folder, tensors)
    return tensors


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Tensor]]:
    out = tmp_path_factory.mktemp("alone") / "gradients"
    return worlds.gradients({"tensor_parallel": 1, "out": str(out)}), read(out)


@pytest.mark.parametrize("tensor_parallel", [1, 2])
def test_two_processes_have_the_gradients_of_one(
    tensor_parallel: int, alone: tuple[dict[str, Any], dict[str, Tensor]], tmp_path: Path
) -> None:
    one, expected = alone
    answers = together(HERE, "gradients", {"tensor_parallel": tensor_parallel, "out": str(tmp_path / "g")})
    assert [answer["place"] for answer in answers] == (
        [[0, 2, 1], [1, 2, 1]] if tensor_parallel == 1 else [[0, 1, 2], [0, 1, 2]]
    )
    for answer in answers:
        assert answer["loss"] == pytest.approx(one["loss"], abs=1e-6)
        assert answer["norm"] == pytest.approx(one["norm"], rel=1e-6)
        assert answer["held"] < 0.85 * one["held"], "each process holds its part only"
    assert [answer["any"] for answer in answers] == [tensor_parallel == 1] * 2, "a flag of one process reaches all"
    found = read(tmp_path / "g")
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-6, rtol=1e-5, msg=name)


def test_t8_a_run_goes_on_with_another_number_of_processes(tmp_path: Path) -> None:
    """T8: 2 -> 2 is bit-equal to an uninterrupted run; 2 -> 1 has the first step's loss within 1e-6; 1 -> 2 reads on."""

    def steps(first: int, last: int, start: str, out: str, size: int) -> list[list[float]]:
        argument = {"first": first, "last": last, "start": start and str(tmp_path / start), "out": str(tmp_path / out)}
        if size == 1:
            return worlds.train(argument)["losses"]
        answers = together(HERE, "train", argument, size=size)
        assert answers[0] == answers[1]
        return answers[0]["losses"]

    whole = steps(0, 4, "", "whole", 2)
    assert steps(0, 2, "", "half", 2) == whole[:2]
    assert steps(2, 4, "half", "resumed", 2) == whole[2:]
    for part in ("model", "optimizer"):
        assert len(list((tmp_path / "half" / part).glob("*.safetensors"))) == 2, "each process wrote a file"
        expected, found = read(tmp_path / "whole" / part), read(tmp_path / "resumed" / part)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected), part
    alone = steps(2, 3, "half", "alone", 1)
    assert alone[0][0] == pytest.approx(whole[2][0], abs=1e-6)
    again = steps(3, 4, "alone", "again", 2)
    assert again[0][0] == pytest.approx(whole[3][0], abs=1e-5), "two updates apart by rounding alone"
