"""The end of models, pools and the interpreter while threads still compute or wait for work."""

from __future__ import annotations

import subprocess
import sys

import pytest

START = """
import gc, os, sys, threading, time
from openherd.config import ModelConfig
from openherd.engine.native_backend import NativeBackend
from openherd.engine.protocols import KVSpec
from tests.parity.random_llama import float_source, random_weights
from tests.unit.native.native_models import batch_of, loaded

CONFIG = ModelConfig("llama", 64, 2, 4, 2, 16, 96, 101, 512)
BATCH = batch_of([(range(90), 0, range(first, first + 6)) for first in (0, 6)])

def a_backend():
    return loaded(NativeBackend(3), CONFIG, float_source(random_weights(CONFIG, 1)), KVSpec())

def forever(backend):
    while True:
        backend.forward(BATCH)

threads_before = len(os.listdir("/proc/self/task")) if sys.platform == "linux" else 0
backend = a_backend()
backend.forward(BATCH)
"""
ENDS = {
    "exit while workers spin": "",
    "exit while a daemon thread computes": """
for _ in range(2):
    threading.Thread(target=forever, args=(a_backend(),), daemon=True).start()
time.sleep(0.2)
""",
    "collected without close": """
cycle = [backend]
cycle.append(cycle)
del backend, cycle
gc.collect()
assert not threads_before or len(os.listdir("/proc/self/task")) == threads_before
""",
    "closed while a thread computes": """
worker = threading.Thread(target=lambda: [backend.forward(BATCH) for _ in range(200)])
threading.excepthook = lambda args: None
worker.start()
backend.close()
worker.join()
""",
    "a fork that exits": """
child = os.fork()
if child == 0:
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
backend.forward(BATCH)
""",
    "a fork that computes and exits": """
child = os.fork()
backend.forward(BATCH)
if child == 0:
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
""",
}


@pytest.mark.parametrize("name", ENDS)
def test_process_ends_well(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", START + ENDS[name]], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
