"""The same training in a world of one and of two gloo processes: gradients, sums, checkpoints of the other (T8)."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from openherd.errors import FormatError, OptionError
from openherd.train.model.decoder import Decoder
from openherd.train.parallel.world import World
from tests.train.loop import small_run
from tests.train.parallel import worlds
from tests.train.parallel.processes import together

HERE = "tests.train.parallel.worlds"
FULL = bool(os.environ.get("OPENHERD_FULL_TESTS"))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    out = tmp_path_factory.mktemp("alone")
    return worlds.gradients({"tensor_parallel": 1, "out": str(out)}), out


def read(folder: Path) -> dict[str, torch.Tensor]:
    tensors = {name: torch.empty_like(p) for name, p in Decoder(worlds.CONFIG).state_dict().items()}
    World.single().load_tensors(folder, tensors)
    return tensors


@pytest.mark.parametrize(
    ("size", "tensor_parallel"),
    [(2, 1), (2, 2), pytest.param(4, 2, marks=pytest.mark.skipif(not FULL, reason="make test-train"))],
)
def test_processes_have_the_gradients_of_one(
    size: int, tensor_parallel: int, alone: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    one, expected = alone
    argument = {"tensor_parallel": tensor_parallel, "out": str(tmp_path)}
    answers = together(HERE, "gradients", argument, size=size)
    shares = size // tensor_parallel
    assert [answer["place"] for answer in answers] == [
        [rank // tensor_parallel, shares, tensor_parallel] for rank in range(size)
    ]
    for answer in answers:
        assert answer["loss"] == pytest.approx(one["loss"], abs=1e-6)
        assert answer["norm"] == pytest.approx(one["norm"], rel=1e-6)
        assert answer["held"] < 0.85 * one["held"], "each process holds its part only"
        assert answer["any"] == (shares > 1), "a flag of one process reaches all"
    for name, gradient in read(expected / "gradients").items():
        torch.testing.assert_close(read(tmp_path / "gradients")[name], gradient, atol=1e-6, rtol=1e-5, msg=name)
    saved = read(tmp_path / "weights")
    assert len(list((tmp_path / "weights").iterdir())) == size, "each process has written a file of shards"
    assert all(torch.equal(saved[name], values) for name, values in read(expected / "weights").items())


def test_t8_a_run_goes_on_with_another_number_of_processes(tmp_path: Path) -> None:
    """T8: the data order is the same; 2 -> 2 is bit-equal to an uninterrupted run; 2 -> 1 and 1 -> 2 have the next
    step's loss within 1e-6."""
    small_run.write_data(tmp_path / "data")
    common = {"data": str(tmp_path / "data")}
    one = worlds.trained({**common, "out": str(tmp_path / "one"), "last": 5}, World.single())
    shutil.copytree(tmp_path / "one", tmp_path / "one-on")
    ranks = together(HERE, "phases", {**common, "root": str(tmp_path)})
    assert [rank["files"] for rank in ranks] == [2, 2], "each process has written a file of shards"
    for rank in ranks:
        whole, cut, resumed, from_one = (rank[name] for name in ("whole", "cut", "resumed", "from-one"))
        assert cut["step"] == 5
        assert list(resumed["losses"]) == [str(step) for step in range(5, small_run.STEPS)]
        assert {**cut["losses"], **resumed["losses"]} == whole["losses"]
        assert resumed["digests"] == whole["digests"], "2 -> 2: bit-equal weights, moments and state"
        assert {**cut["seen"], **resumed["seen"]} == whole["seen"]
        assert from_one["seen"] == {step: whole["seen"][step] for step in from_one["seen"]}
        assert from_one["losses"]["5"] == pytest.approx(whole["losses"]["5"], abs=1e-5)
    two_to_one = worlds.trained({**common, "out": str(tmp_path / "for-one"), "last": 7}, World.single())
    whole = ranks[0]["whole"]
    assert two_to_one["losses"][5] == pytest.approx(whole["losses"]["5"], abs=1e-6)
    assert two_to_one["seen"] == {step: whole["seen"][str(step)] for step in (5, 6)}
    single = worlds.trained({**common, "out": str(tmp_path / "one-on"), "last": 6}, World.single())
    assert ranks[0]["from-one"]["losses"]["5"] == pytest.approx(single["losses"][5], abs=1e-6), "1 -> 2"
    assert list(one["losses"]) == [0, 1, 2, 3, 4]
    assert list(single["losses"]) == [5]


def test_a_world_of_one_needs_nobody() -> None:
    world = World.single()
    assert (world.rank, world.size, world.num_processes, world.is_main) == (0, 1, 1, True)
    assert world.sum(2.5) == 2.5
    assert not world.any(False)
    model = Decoder(worlds.CONFIG)
    assert world.wrap(model) is model


def test_a_part_of_a_sharded_tensor_that_is_missing_is_refused(tmp_path: Path) -> None:
    """DCP itself leaves what no file holds as it was: zeros would be trained on."""
    from safetensors.torch import save_file

    whole = torch.arange(8.0).view(4, 2)
    for part, start in ((1, 0), (2, 2)):
        facts = {"DCP_SHARDING_INFO": f'{{"w": {{"saved_offsets": [{start}, 0]}}}}', "DCP_VERSION": "1.0"}
        save_file({"w": whole[start : start + 2].clone()}, tmp_path / f"shard-{part}.safetensors", metadata=facts)
    into = {"w": torch.zeros(4, 2)}
    World.single().load_tensors(tmp_path, into)
    assert torch.equal(into["w"], whole)
    for wanted, said in (
        ({"v": torch.zeros(4, 2)}, "the tensor v is missing"),
        ({"w": torch.zeros(4, 3)}, r"w is torch.float32 \[4, 2\]"),
        ({"w": torch.zeros(4, 2, dtype=torch.bfloat16)}, r"torch.bfloat16 \[4, 2\] is needed"),
    ):
        with pytest.raises(FormatError, match=said):
            World.single().load_tensors(tmp_path, wanted)
    (tmp_path / "shard-1.safetensors").unlink()
    with pytest.raises(FormatError, match="parts of the tensor w are missing"):
        World.single().load_tensors(tmp_path, into)
    (tmp_path / "shard-2.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(FormatError, match="no sound safetensors"):
        World.single().load_tensors(tmp_path, into)


def test_places_that_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OptionError, match="tensor_parallel must divide the number of processes, 1"):
        World.from_environment("cpu", tensor_parallel=2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(OptionError, match="no GPU"):
        World.from_environment("cuda")
    with pytest.raises(OptionError, match="device must be cpu, cuda or auto"):
        World.from_environment("tpu")
    assert World.from_environment("auto").device.type == "cpu"
