"""What a person meets who starts the program: the time to the first token from nothing, and the memory it takes.

Each measurement is a process of its own. Its memory is the peak that the kernel noted for it, mapped pages of the
model's file included; the process says it itself, because what a parent is told of its child covers the moment
between fork and exec, with the parent's memory.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

from openherd.errors import EngineError

TIMEOUT_S = 600

# Runs the verb as `herd` does, then says the most memory this process ever had.
_WITH_PEAK = """
import json, sys
from openherd.cli import main
status = main(sys.argv[1:])
from openherd.workshop.bench.fresh_process import own_peak_bytes
print(json.dumps(own_peak_bytes()), file=sys.stderr)
sys.exit(status)
"""


def interpreter_start_s() -> float:
    """Seconds of a Python that does nothing: what no program in it can go below."""
    return _run([sys.executable, "-I", "-c", "pass"])[0]


def cold_start_s(model: Path, threads: int) -> float:
    """Seconds from the start of `herd run -p hi --max-tokens 1` to its exit, with the file in the page cache."""
    return _run([sys.executable, "-m", "openherd", *_run_verb(model, "hi", threads), "--max-tokens", "1"])[0]


def peak_bytes(model: Path, prompt: str, context: int, threads: int, *, chat: bool) -> int:
    """Most resident memory of `herd run` with a prompt that fills the context. `chat`: through the model's template."""
    verb = [*_run_verb(model, prompt, threads), "--context", str(context), "--max-tokens", "8"]
    _, stderr = _run([sys.executable, "-c", _WITH_PEAK, *verb, *(["--chat"] if chat else [])])
    return int(json.loads(stderr.splitlines()[-1]))


def own_peak_bytes() -> int:
    """Most resident memory this process has had."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _run_verb(model: Path, prompt: str, threads: int) -> list[str]:
    return ["run", str(model.resolve()), "-p", prompt, "--threads", str(threads), "--offline"]


def _run(command: Sequence[str]) -> tuple[float, str]:
    """Seconds it took and what it said on standard error. Raises `EngineError` when it fails.

    Compiled modules may be kept, as a person's Python keeps them, whatever this process was told: to compile ours at
    every start takes 0.1 s.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    started = perf_counter()
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT_S, env=environment
        )
    except subprocess.TimeoutExpired:
        raise EngineError(f"a fresh process took longer than {TIMEOUT_S} s") from None
    seconds = perf_counter() - started
    if done.returncode != 0:
        said = " ".join(done.stderr.split()) or "nothing"
        raise EngineError(f"a fresh process ended with status {done.returncode} and said: {said[-300:]}")
    return seconds, done.stderr
