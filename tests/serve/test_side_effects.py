"""X11: under strace, `herd run` and `herd serve` connect to nothing and write nowhere but in the declared folders.

Declared: OPENHERD_HOME. Python's own compiled caches are switched off, as they are wherever a package was compiled when
it was installed. What is traced are all system calls of the classes network and file, of all processes and threads.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serve.conftest import serving
from tests.serve.test_overload import wait_until
from tests.unit.llm.tiny_file import write_model

STRACE = shutil.which("strace")
TRACE = ["strace", "-f", "-qq", "-s", "256", "-e", "trace=%network,%file", "-e", "signal=none", "-o"]
CHANGING = {
    "creat", "mkdir", "mkdirat", "rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat", "mknod",
    "mknodat", "unlink", "unlinkat", "rmdir", "truncate", "chmod", "fchmodat", "fchmodat2", "chown", "lchown",
    "fchownat", "utime", "utimes", "utimensat", "futimesat", "setxattr", "lsetxattr", "removexattr", "mount",
}  # fmt: skip
WRITING = re.compile(r"O_(WRONLY|RDWR|CREAT|TRUNC|APPEND|TMPFILE)")
CALL = re.compile(r"^\d+\s+(?P<name>\w+)\((?P<rest>.*)$")
UNFINISHED = re.compile(r"<\.\.\. (\w+) resumed>")
PATH = re.compile(r'"((?:[^"\\]|\\.)*)"')


def _traceable() -> str | None:
    """Why this machine cannot trace; None: it can."""
    if STRACE is None:
        return "strace is not installed (Debian: apt install strace)"
    done = subprocess.run([STRACE, "-qq", "-o", os.devnull, "true"], capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else f"strace may not trace here: {done.stderr.strip()[:100]}"


WHY_NOT = _traceable()
needs_strace = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))


def calls(trace: str) -> Iterator[tuple[str, str]]:
    for line in trace.splitlines():
        if (call := CALL.match(line)) is not None:
            yield call["name"], call["rest"]
        else:
            assert UNFINISHED.search(line) or "+++" in line or "---" in line, f"not understood: {line}"


def side_effects(trace: str, *declared: Path) -> list[str]:
    """Connections to anywhere, and changes to files outside of `declared`. A failed attempt counts too."""
    found = []
    for name, rest in calls(trace):
        to_network = "AF_INET" in rest or "sin_addr" in rest or "AF_NETLINK" in rest
        if name in ("connect", "sendto", "sendmsg", "sendmmsg") and to_network:
            found.append(f"{name}({rest}")
        elif name in CHANGING or (name.startswith("open") and WRITING.search(rest)):
            paths = [Path(path) for path in PATH.findall(rest)]
            if not all(_is_within(path, declared) for path in paths):
                found.append(f"{name}({rest}")
    return found


def _is_within(path: Path, declared: tuple[Path, ...]) -> bool:
    allowed = path in (Path(os.devnull), Path("/dev/tty")) or any(path.is_relative_to(folder) for folder in declared)
    return allowed and ".." not in path.parts


def environment(home: Path) -> dict[str, str]:
    return {**os.environ, "OPENHERD_HOME": str(home), "HOME": str(home.parent), "PYTHONDONTWRITEBYTECODE": "1"}


def test_the_check_finds_what_it_is_for() -> None:
    """A test of the test: each of these would be a fault."""
    for line in (
        '12 connect(5, {sa_family=AF_INET, sin_port=htons(443), sin_addr=inet_addr("1.2.3.4")}, 16) = 0',
        '12 sendto(5, "x", 1, 0, {sa_family=AF_INET6, sin6_port=htons(53)}, 28) = 1',
        '12 openat(AT_FDCWD, "/var/cache/x", O_WRONLY|O_CREAT, 0666 <unfinished ...>',
        '12 mkdir("/tmp/x", 0777) = -1 EEXIST (File exists)',
        '12 rename("/home/a", "/etc/a") = 0',
        '12 openat(AT_FDCWD, "/home/../etc/a", O_RDWR) = 3',
    ):
        assert side_effects(line, Path("/home")) == [line.partition(" ")[2]]
    for line in (
        '12 openat(AT_FDCWD, "/etc/passwd", O_RDONLY|O_CLOEXEC) = 3',
        '12 rename("/home/a", "/home/b") = 0',
        '12 bind(5, {sa_family=AF_INET, sin_port=htons(0), sin_addr=inet_addr("127.0.0.1")}, 16) = 0',
        "12 <... openat resumed>) = 3",
        "12 +++ exited with 0 +++",
    ):
        assert side_effects(line, Path("/home")) == []


@needs_strace
def test_x11_run_has_no_side_effects(tmp_path: Path) -> None:
    model, trace = write_model(tmp_path / "tiny.gguf"), tmp_path / "trace"
    command = [
        *TRACE,
        str(trace),
        sys.executable,
        "-m",
        "openherd",
        "run",
        str(model),
        "-p",
        "a b",
        "--max-tokens",
        "3",
    ]
    done = subprocess.run(command, env=environment(tmp_path / "home"), capture_output=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    text = trace.read_text(errors="replace")
    assert str(model) in text, "the model was not seen being read"
    assert side_effects(text, tmp_path / "home") == []
    assert not (tmp_path / "home").exists(), "a completion has nothing to keep"


@needs_strace
def test_x11_serve_has_no_side_effects(tmp_path: Path) -> None:
    """From the start through answers, a worker's death and its replacement, to the end."""
    model, trace, home = write_model(tmp_path / "tiny.gguf"), tmp_path / "trace", tmp_path / "home"
    with serving(str(model), wrapper=[*TRACE, str(trace)], env=environment(home)) as server:
        for path in ("/v1/models", "/metrics", "/openapi.json", "/nothing", "/ready"):
            assert server.get(path).status in (200, 404)
        assert server.complete("a b", max_tokens=3).status == 200
        with server.streaming("/v1/completions", {"prompt": "a b", "max_tokens": 3}) as response:
            assert response.read().endswith(b"[DONE]\n\n")
        os.kill(server.worker_pid, signal.SIGKILL)
        assert [server.news()["event"] for _ in range(2)] == ["worker_died", "worker_restarted"]
        assert server.complete("a b", max_tokens=3).status == 200
        wait_until(lambda: any((home / "servers").glob("*.json")))
        (file,) = (home / "servers").glob("*.json")
        os.kill(int(file.stem), signal.SIGTERM)
        assert server.process.wait(120) == 0
    text = trace.read_text(errors="replace")
    names = [name for name, _ in calls(text)]
    assert names.count("execve") >= 3, "front and two workers"
    assert "bind" in names
    assert "accept4" in names or "accept" in names
    assert f'"{home}/servers/' in text, "the server's file was not seen being written"
    assert side_effects(text, home) == []
