"""Starts `herd train run` on the machines of a Ray cluster: the places that torchrun would give, given by Ray.

    python -m openherd.train.parallel.ray_launcher --workers 8 --gpus 1 -- recipe.toml --steps 1000

Each worker is a process of its own with torchrun's environment, so that nothing in training knows of Ray. All of them
need the data and the run's folder under the same path. Ray is no dependency of openherd: pip install ray.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from openherd.errors import HerdError, OptionError


class Worker:
    """One place in the cluster. Ray sets CUDA_VISIBLE_DEVICES, so a worker's GPU is always its first."""

    def address(self) -> tuple[str, int]:
        """Where the others can meet this worker."""
        with socket.socket() as probe:
            probe.bind(("", 0))
            return _ray().util.get_node_ip_address(), int(probe.getsockname()[1])

    def run(self, command: Sequence[str], place: Mapping[str, str]) -> int:
        """The exit status of the command in this place."""
        return subprocess.call(list(command), env={**os.environ, **place})


def launch(arguments: Sequence[str], *, workers: int, gpus: int, cpus: int = 1) -> int:
    """Run `herd train run ARGUMENTS` by `workers` processes with so many GPUs and CPUs each; the highest exit status.

    Raises OptionError where Ray is not installed or `workers` is no number of processes.
    """
    if workers < 1:
        raise OptionError(f"--workers must be at least 1, not {workers}")
    ray = _ray()
    ray.init(ignore_reinit_error=True)
    remote = ray.remote(num_gpus=gpus, num_cpus=cpus)(Worker)
    placed = [remote.remote() for _ in range(workers)]
    host, port = ray.get(placed[0].address.remote())
    command = [sys.executable, "-m", "openherd", "train", "run", *arguments]
    ends = [worker.run.remote(command, place_of(rank, workers, host, port)) for rank, worker in enumerate(placed)]
    return max(ray.get(ends))


def place_of(rank: int, workers: int, host: str, port: int) -> dict[str, str]:
    """What torchrun tells a process."""
    place = {"RANK": rank, "WORLD_SIZE": workers, "LOCAL_RANK": 0, "MASTER_ADDR": host, "MASTER_PORT": port}
    return {name: str(value) for name, value in place.items()}


def _ray() -> Any:
    try:
        return import_module("ray")
    except ModuleNotFoundError:
        raise OptionError(
            "training on a Ray cluster needs Ray, which is not installed",
            hint="try: pip install ray, or start the processes with torchrun",
        ) from None


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m openherd.train.parallel.ray_launcher", description=__doc__)
    parser.add_argument("--workers", type=int, required=True, help="processes, over all machines")
    parser.add_argument("--gpus", type=int, default=1, help="GPUs of each; 0: train on CPUs")
    parser.add_argument("--cpus", type=int, default=1, help="CPUs of each")
    parser.add_argument("arguments", nargs="+", help="of herd train run, behind --")
    asked = parser.parse_args(argv)
    try:
        return launch(asked.arguments, workers=asked.workers, gpus=asked.gpus, cpus=asked.cpus)
    except HerdError as error:
        print(f"herd: error: {error}", file=sys.stderr)
        return error.exit_status


if __name__ == "__main__":
    sys.exit(main())
