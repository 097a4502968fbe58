"""Tensors of one process on the disk, and what several processes make of a failure of one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from openherd.errors import FormatError, OutputError
from openherd.train.checkpoint import on_main
from openherd.train.parallel.world import World
from openherd.train.saved_tensors import read_tensors, write_tensors


def test_tensors_come_back_bit_for_bit(tmp_path: Path) -> None:
    made = {
        "a": torch.randn(3, 5),
        "b": torch.randn(7).bfloat16(),
        "c": torch.randn(2, 2, 2).half(),
        "d": torch.randn(6, 4).t(),  # not contiguous
        "e": torch.randn(1 << 20, 2),  # longer than a chunk
    }
    write_tensors(tmp_path / "t", made)
    read = {name: torch.zeros_like(tensor) for name, tensor in made.items()}
    read_tensors(tmp_path / "t", read)
    for name, tensor in made.items():
        assert torch.equal(read[name], tensor), name


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"b": torch.zeros(2, 3)}, "the tensor b is missing"),
        ({"a": torch.zeros(3, 2)}, r"a is F32 \[2, 3\], and F32 \[3, 2\] is needed"),
        ({"a": torch.zeros(2, 3).bfloat16()}, "and BF16"),
    ],
)
def test_tensors_that_are_not_there(wanted: dict[str, torch.Tensor], message: str, tmp_path: Path) -> None:
    write_tensors(tmp_path, {"a": torch.zeros(2, 3)})
    with pytest.raises(FormatError, match=message):
        read_tensors(tmp_path, wanted)


class Other(World):
    """A process that is not the main one, while that one fails."""

    is_main = False  # type: ignore[assignment]

    def any(self, flag: bool) -> bool:
        return True


def test_what_fails_on_the_main_process_fails_everywhere() -> None:
    called: list[int] = []
    with pytest.raises(OutputError, match="main process"):
        on_main(Other(torch.device("cpu")), lambda: called.append(1))
    assert not called

    def fail() -> None:
        raise OutputError("full")

    with pytest.raises(OutputError, match="full"):
        on_main(World.single(), fail)
