"""The Ray launcher, with a stand-in for Ray that runs workers where they are."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from openherd.train.parallel import ray_launcher


def test_without_ray_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert ray_launcher.main(["--workers", "2", "--", "recipe.toml"]) == 2
    assert "needs Ray, which is not installed\ntry: pip install ray" in capsys.readouterr().err
    assert ray_launcher.main(["--workers", "0", "--", "recipe.toml"]) == 2
    assert "--workers must be at least 1" in capsys.readouterr().err


class _Method:
    def __init__(self, call: Any) -> None:
        self.remote = call


def test_each_worker_runs_the_same_command_in_torchruns_place(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, int] = {}

    def remote(**resources: int) -> Any:
        asked.update(resources)
        return lambda kind: _Method(
            lambda: SimpleNamespace(**{n: _Method(getattr(kind(), n)) for n in ("address", "run")})
        )

    util = SimpleNamespace(get_node_ip_address=lambda: "10.1.2.3")
    fake = SimpleNamespace(init=lambda **_: None, remote=remote, get=lambda value: value, util=util)
    monkeypatch.setitem(sys.modules, "ray", fake)
    called: list[tuple[list[str], dict[str, str]]] = []

    def call(command: list[str], env: dict[str, str]) -> int:
        called.append((command, env))
        return len(called) - 1

    monkeypatch.setattr(ray_launcher.subprocess, "call", call)
    assert ray_launcher.main(["--workers", "3", "--gpus", "0", "--", "recipe.toml", "--steps", "5"]) == 2, (
        "the worst end"
    )
    assert asked == {"num_gpus": 0, "num_cpus": 1}
    assert len(called) == 3
    assert {tuple(command[1:]) for command, _ in called} == {
        ("-m", "openherd", "train", "run", "recipe.toml", "--steps", "5")
    }
    places = [[env[name] for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")] for _, env in called]
    assert places == [["0", "3", "0"], ["1", "3", "0"], ["2", "3", "0"]]
    assert {env["MASTER_ADDR"] for _, env in called} == {"10.1.2.3"}, "not what this machine calls itself: 127.0.1.1"
    assert len({env["MASTER_PORT"] for _, env in called}) == 1
