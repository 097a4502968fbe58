"""Two processes on this machine that make one world over gloo, as torchrun would start them, and what they answer."""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

_PROGRAM = """
import json, sys
from importlib import import_module
module, function, argument = sys.argv[1:]
answer = getattr(import_module(module), function)(json.loads(argument))
print("ANSWER " + json.dumps(answer))
"""


def together(module: str, function: str, argument: object, *, size: int = 2, timeout: float = 240) -> list[Any]:
    """Call `module.function(argument)` in `size` processes of one world; their answers (JSON) by rank."""
    port = _free_port()
    processes = [_start(module, function, argument, rank, size, port) for rank in range(size)]
    try:
        outputs = [process.communicate(timeout=timeout) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (_, errors) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, errors
    return [json.loads(text.rsplit("ANSWER ", 1)[1]) for text, _ in outputs]


def _start(module: str, function: str, argument: object, rank: int, size: int, port: int) -> subprocess.Popen[str]:
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    root = str(Path(__file__).parents[3])
    return subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, module, function, json.dumps(argument)],
        env={**os.environ, **{key: str(value) for key, value in place.items()}, "OMP_NUM_THREADS": "1"},
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _free_port() -> int:
    """One that the system gives to nobody by itself. A process that waits for the world's first one could otherwise be
    given the very port it asks for, connect to itself, and keep the first one from it; so could another test's."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
