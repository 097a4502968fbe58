"""Real processes to kill: a server imports PyTorch once and forks a process for every run.

with Forks() as forks:
    pid = forks.start("train", out=..., data=...)
    os.kill(pid, signal.SIGKILL)
    assert forks.wait(pid) == -signal.SIGKILL
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).parents[3]


class Forks:
    def __init__(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.train.loop.forks"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, role: str, **arguments: Any) -> int:
        """Run a function of `roles` in a process of its own; its exit status is what the function returns."""
        return int(self._ask({"role": role, "arguments": arguments}))

    def wait(self, pid: int) -> int:
        """Its exit status, or minus the signal that ended it."""
        return int(self._ask({"wait": pid}))

    def call(self, role: str, **arguments: Any) -> int:
        return self.wait(self.start(role, **arguments))

    def _ask(self, question: dict[str, Any]) -> Any:
        assert self._server.stdin
        assert self._server.stdout
        self._server.stdin.write(json.dumps(question, default=str) + "\n")
        self._server.stdin.flush()
        return json.loads(self._server.stdout.readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server.stdin
        self._server.stdin.close()
        self._server.wait(20)


def _serve() -> None:
    import torch
    import torch._dynamo  # optimisers import it, which takes longer than the runs here

    from tests.train.loop import roles

    torch.set_num_threads(1)
    for line in sys.stdin:
        question = json.loads(line)
        if "wait" in question:
            answer = os.waitstatus_to_exitcode(os.waitpid(question["wait"], 0)[1])
        else:
            answer = os.fork()
            if not answer:
                _become(getattr(roles, question["role"]), question["arguments"])
        print(answer, flush=True)


def _become(role: Any, arguments: dict[str, Any]) -> None:
    status = 70
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(2, 1)
        status = role(**arguments)
    except BaseException as error:
        traceback.print_exc()
        status = getattr(error, "exit_status", 70)
    finally:
        os._exit(status)


if __name__ == "__main__":
    _serve()
