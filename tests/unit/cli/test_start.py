"""What `herd` loads and how much memory it takes: each asserted in a fresh process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

# What a completion does not use must not cost every start its import (docs/dev-log.md, 2026-11-24).
NOT_FOR_RUN = [
    "asyncio",
    "concurrent.futures",
    "email",
    "http",
    "jinja2",
    "llguidance",
    "logging",
    "openherd.chat.repl",
    "openherd.constrain.constraint",
    "openherd.engine.reference_backend",
    "openherd.llm.embedding",
    "openherd.llm.scoring",
    "openherd.store.pull",
    "prompt_toolkit",
    "rich",
    "secrets",
    "ssl",
    "subprocess",
    "torch",
    "urllib.request",
    "zipfile",
]


def loaded_after(code: str) -> set[str]:
    """Modules that a fresh interpreter holds at the end of `code`."""
    printing = "\nimport sys; print('\\n' + ' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code + printing], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_run_loads_only_what_a_completion_needs(tiny_model: Path) -> None:
    call = f"assert main(['run', {str(tiny_model)!r}, '-p', 'a b', '--max-tokens', '1']) == 0"
    modules = loaded_after(f"from openherd.cli import main\n{call}")
    assert "openherd._native" in modules
    assert sorted(modules & set(NOT_FOR_RUN)) == []


@pytest.mark.parametrize(("thread", "goes_on"), [("", False), ("threading.Thread(target=done.wait).start()", True)])
def test_the_command_ends_its_process_unless_something_still_runs(thread: str, goes_on: bool) -> None:
    code = f"""
import atexit, sys, threading
from openherd.cli import main
done = threading.Event()
atexit.register(lambda: print("at exit"))
{thread}
sys.argv = ["herd", "--version"]
status = main()
print("went on")
done.set()
sys.exit(status)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines()[1:] == (["went on", "at exit"] if goes_on else ["at exit"])


def test_the_command_ends_with_its_status() -> None:
    ended = subprocess.run([sys.executable, "-m", "openherd", "runn"], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "did you mean run" in ended.stderr


def test_a_start_has_one_thread_of_linear_algebra(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    call = f"assert main(['run', {str(tiny_model)!r}, '-p', 'a b', '--max-tokens', '1', '--threads', '1']) == 0"
    code = f"import os; from openherd.cli import main\n{call}\nprint(); print(len(os.listdir('/proc/self/task')))"
    if sys.platform != "linux":
        pytest.skip("threads are counted in /proc")
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-1] == "1"


CONVERSATION = """
import sys
from openherd import LLM, SamplingParams
from openherd.options import EngineOptions

def memory():
    kept = ("VmHWM", "RssAnon", "RssFile")
    lines = (line.partition(":") for line in open("/proc/self/status"))
    return {name: int(value.split()[0]) * 1024 for name, _, value in lines if name in kept}

with LLM.load(sys.argv[1], options=EngineOptions(context=2048)) as llm:
    loaded = memory()
    ids = llm.tokenizer.encode("The quick brown fox jumps over the lazy dog. " * 250)[:2000]
    done = llm.generate([ids], SamplingParams(max_tokens=47, temperature=0, ignore_eos=True))[0]
    assert done.usage.prompt_tokens + done.usage.completion_tokens == 2047
    kv = 2 * 2 * llm.config.n_layers * llm.config.kv_dim * 2048
    print(json.dumps({"kv": kv, "file": llm.path.stat().st_size, "loaded": loaded, "answered": memory()}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of resident memory is read from /proc")
def test_a_conversation_at_2k_of_context_stays_small(default_model: Path) -> None:
    """The bar is a peak of 1.3 times the file, keys and values, and 60 MB: 235 MB, and 234 are taken here.

    The peak also holds pages of files, which the system maps as it likes (282 MiB were seen once, and the same process
    223 again): they are guarded at 100 MB. Memory of the process's own is held to the bar itself.
    """
    command = [sys.executable, "-c", f"import json\n{CONVERSATION}", str(default_model)]
    seen = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    own, peak = seen["answered"]["RssAnon"], seen["answered"]["VmHWM"]
    assert own <= 1.05 * seen["file"] + seen["kv"] + 60e6, seen  # packed weights take at most 1.04 times the file
    assert peak <= 1.3 * seen["file"] + seen["kv"] + 100e6, seen
