"""What a hostile or clumsy user gives `herd`, each through a real process: one clear error, never a traceback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from openherd._native import available_isas
from tests.checkpoint_files import GGUFFile, entry, f32, text, texts, tiny_llama, u32
from tests.unit.llm.tiny_file import write_model

HERD = [sys.executable, "-m", "openherd"]
Change = Callable[[GGUFFile], object]


def herd(*arguments: object, stdin: bytes = b"", **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*HERD, *map(str, arguments)],
        input=stdin, capture_output=True, check=False, timeout=60, env={**os.environ, **environment},
    )  # fmt: skip


def assert_one_clear_error(done: subprocess.CompletedProcess[bytes], words: str) -> None:
    said = done.stderr.decode()
    assert done.returncode in (1, 2), said
    assert done.stdout == b""
    assert said.startswith("herd: error: "), said
    assert len(said.splitlines()) <= 2, said
    assert words in said
    assert "\x1b" not in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--threads", "0"], "threads must be"),
        (["--threads", "1000000000"], "threads must be"),
        (["--max-tokens", "0"], "--max-tokens must be"),
        (["--max-tokens", "-1"], "--max-tokens must be"),
        (["--seed", "-1"], "seed must be"),
        (["--seed", str(2**64)], "seed must be"),
        (["--seed", "1.5"], "--seed must be a whole number, not '1.5'"),
        (["--temperature", "nan"], "temperature must be"),
        (["--temprature", "1"], "Did you mean --temperature?"),
        (["--stop", ""], "stop must be"),
        (["--stop", b"\xe9"], "--stop is not UTF-8 text"),
        (["--logit-bias", "junk"], "--logit-bias is ID=BIAS"),
        (["--context", str(2**40)], "context must be"),
        (["--context", "100000"], "which the model was trained for"),
        (["--kv-memory", "1"], "KV cache"),
        (["--kv-memory", str(2**42)], "memory ran out"),
        (["--kv-memory", str(2**46 + 1)], "--kv-memory must be"),
        (["--kv-memory", str(2**48)], "--kv-memory must be"),
        (["--adapter", "nowhere"], "does not exist"),
        (["--adapter", "/dev/zero"], "not a regular file"),
        (["--schema", "[1]"], "cannot read the schema"),
        (["--schema", "{"], "not JSON"),
        (["--schema", '{"const":' + "9" * 5000 + "}"], "not JSON"),
        (["--schema", '{"type":"nope"}'], "nope"),
        (["--schema", '{"if":{}}'], "'if' is not supported"),
        (["--schema", '{"items":' * 5000 + "{}" + "}" * 5000], "nested too deeply"),
    ],
)
def test_option(tiny_model: Path, arguments: list[str | bytes], words: str) -> None:
    given = [os.fsdecode(argument) for argument in arguments]
    assert_one_clear_error(herd("run", tiny_model, "-p", "hello", *given), words)


def _tensor(name: str, factor: float) -> Change:
    def change(file: GGUFFile) -> None:
        [old] = [tensor for tensor in file.tensors if tensor.name == name]
        values = np.frombuffer(old.data, np.float32).reshape(old.dims[::-1])
        file.tensors[file.tensors.index(old)] = entry(name, values * np.float32(factor))

    return change


def _key(name: str, value: tuple[int, bytes]) -> Change:
    return lambda file: file.keys.update({name: value})


MODELS: dict[str, tuple[Change, str]] = {
    "architecture": (_key("general.architecture", text("\x1b[2J\nmamba")), "openherd runs 'llama'"),
    "no layers": (_key("llama.block_count", u32(0)), "block_count must be"),
    "no heads": (_key("llama.attention.head_count", u32(0)), "head_count must be"),
    "heads do not divide": (_key("llama.attention.head_count", u32(5)), "must divide"),
    "another width": (_key("llama.embedding_length", u32(64)), "token_embd.weight has shape"),
    "endless context": (_key("llama.context_length", u32(2**31 - 1)), "context_length must be"),
    "theta 0": (_key("llama.rope.freq_base", f32(0)), "freq_base must be"),
    "theta negative": (_key("llama.rope.freq_base", f32(-1)), "freq_base must be"),
    "theta NaN": (_key("llama.rope.freq_base", f32(float("nan"))), "freq_base must be"),
    "eps 0": (_key("llama.attention.layer_norm_rms_epsilon", f32(0)), "epsilon must be"),
    "vocabulary": (_key("tokenizer.ggml.tokens", texts(["a"] * 49)), "49 tokens do not fit an embedding of 50 rows"),
    "unknown type": (lambda file: setattr(file.tensors[0], "type_id", 99), "type number 99"),
}


@pytest.mark.parametrize(("change", "words"), MODELS.values(), ids=MODELS)
def test_model(tmp_path: Path, change: Change, words: str) -> None:
    file = tiny_llama()
    change(file)
    path = tmp_path / "bad.gguf"
    path.write_bytes(file.build())
    assert_one_clear_error(herd("run", path, "-p", "hello", "--max-tokens", "3"), words)


def test_weights_that_are_not_numbers_have_no_score(tmp_path: Path) -> None:
    file = tiny_llama()
    _tensor("output_norm.weight", float("nan"))(file)
    (tmp_path / "nan.gguf").write_bytes(file.build())
    (tmp_path / "text.txt").write_text("t1t2t3t4")
    done = herd("score", tmp_path / "nan.gguf", tmp_path / "text.txt", "--no-special")
    assert_one_clear_error(done, "")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{% for i in range(10**9) %}{% endfor %}", "counts to"),
        ("{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}", "without end"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{% for %}", "does not compile"),
        ("{{ 'x' * 10**10 }}", "too much text"),
        ("{{ raise_exception('\x1b[2J\n\n' * 9000) }}", "refuses this conversation"),
    ],
)
def test_template(tmp_path: Path, source: str, words: str) -> None:
    model = write_model(tmp_path / "model.gguf", template=source)
    assert_one_clear_error(herd("run", model, "-p", "hello", "--chat"), words)


def test_files_that_cannot_be_read(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "folder.gguf").mkdir()
    (tmp_path / "empty.gguf").touch()
    (tmp_path / "short.gguf").write_bytes(tiny_model.read_bytes()[:1000])
    os.mkfifo(tmp_path / "pipe.gguf")
    (tmp_path / "loop.gguf").symlink_to(tmp_path / "loop.gguf")
    for name, words in {
        "folder": "holds no model", "empty": "is empty", "short": "cannot fit", "pipe": "not a regular file",
        "loop": "there is no file", "missing": "there is no file",
    }.items():  # fmt: skip
        assert_one_clear_error(herd("inspect", tmp_path / f"{name}.gguf"), words)


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"OPENHERD_ISA": "junk"}, "OPENHERD_ISA: instruction set 'junk' is not available here; choose one of: "),
        ({"OPENHERD_THREADS": "junk"}, "OPENHERD_THREADS must be"),
    ],
)
def test_environment(tiny_model: Path, environment: dict[str, str], words: str) -> None:
    done = herd("run", tiny_model, "-p", "x", "--max-tokens", "2", stdin=b"", **environment)
    assert_one_clear_error(done, words)
    assert done.returncode == 2


def test_instruction_set_of_another_machine(tiny_model: Path) -> None:
    other = next(isa for isa in ("neon", "avx512") if isa not in available_isas())
    done = herd("run", tiny_model, "-p", "x", OPENHERD_ISA=other)
    assert_one_clear_error(done, f"OPENHERD_ISA: instruction set '{other}' is not available here")
    assert done.returncode == 2
    assert done.stderr.decode().rstrip().endswith(", ".join(available_isas()))


def test_home_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "home").touch()
    assert_one_clear_error(herd("pull", OPENHERD_HOME=str(tmp_path / "home")), "cannot make the folder")


def _shell(line: str) -> subprocess.CompletedProcess[str]:
    """Streams keep their buffers, where unwritten words wait for the interpreter's last flush."""
    line = f"unset PYTHONUNBUFFERED; {line}"
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize(
    ("redirection", "status", "said"),
    [
        (">&-", 1, "standard output is closed"),
        (">/dev/full", 1, "No space left"),
        ("--json >/dev/full", 1, "No space left"),
        ("<&- >/dev/null", 0, "finish"),
        (">/dev/null 2>&-", 0, ""),
    ],
)
def test_closed_and_full_streams(tiny_model: Path, redirection: str, status: int, said: str) -> None:
    done = _shell(f"{' '.join(HERD)} run {tiny_model} -p hello --max-tokens 3 {redirection}")
    assert done.returncode == status
    assert done.stdout == ""
    assert said in done.stderr
    assert len(done.stderr.splitlines()) <= 1


def test_an_error_that_cannot_be_written_keeps_its_exit_status() -> None:
    done = _shell(f"{' '.join(HERD)} run /no/such/model -p hello --json >/dev/full")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[0] == "herd: error: there is no file or folder /no/such/model"
    assert "Exception ignored" not in done.stderr


def test_output_of_another_encoding(tiny_model: Path) -> None:
    run = ("run", tiny_model, "-p", "hello", "--max-tokens", "20", "--seed", "1")
    ascii_text = herd(*run, PYTHONIOENCODING="ascii")
    assert (ascii_text.returncode, ascii_text.stdout.isascii()) == (0, True)
    ascii_json, utf8_json = (herd(*run, "--json", PYTHONIOENCODING=name).stdout for name in ("ascii", "utf-8"))
    assert ascii_json.isascii()
    assert json.loads(ascii_json)["text"] == json.loads(utf8_json)["text"]


def test_a_file_name_that_is_not_utf8(tiny_model: Path, tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9.gguf"
    os.link(tiny_model, path)
    assert os.fsencode(json.loads(herd("inspect", os.fsdecode(path), "--json").stdout)["path"]) == path


@pytest.mark.parametrize("seconds", [0.0, 0.2, 0.5])
def test_interrupt_at_any_time_is_quiet(default_model: Path, seconds: float) -> None:
    command = [*HERD, "run", str(default_model), "-p", "Once upon a time " * 200, "--ignore-eos"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    maps = Path(f"/proc/{child.pid}/maps")
    while child.poll() is None and maps.exists() and "numpy" not in maps.read_text():
        time.sleep(0.01)  # until it loads what computes: before that, Python itself may still be starting
    time.sleep(seconds)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=30)
    # A library that runs Python code of its own while it loads makes Python end by the signal: to a shell, 130 as well.
    assert child.returncode in (130, -signal.SIGINT)
    assert err == b""
