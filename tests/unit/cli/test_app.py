"""What every verb shares: help, errors, exit statuses, and a start that loads nothing heavy."""

from __future__ import annotations

import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import pytest

from openherd import __version__
from openherd.cli.app import PARTS, VERBS, main
from openherd.cli.flags import SAMPLING
from openherd.options import EngineOptions, SamplingParams


@pytest.fixture(autouse=True)
def _empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENHERD_HOME", str(tmp_path / "home"))


def herd(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "openherd", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_help_loads_neither_numpy_nor_the_engine() -> None:
    program = "import sys; from openherd.cli import main; main(['--help']); print(sorted(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "chat" in done.stdout
    for heavy in ("'numpy'", "'torch'", "'openherd.engine", "'tokenizers'", "'prompt_toolkit'", "'openherd.cli.run'"):
        assert heavy not in done.stderr


def test_help_answers_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """0.13 s beside 0.012 s for Python alone; the bound leaves room for a machine that is shared."""
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)  # users compile a module once

    def seconds(*arguments: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], capture_output=True, check=True, timeout=60)
        return time.perf_counter() - start

    pairs = [(seconds("-m", "openherd", "--help"), seconds("-c", "pass")) for _ in range(7)]
    assert min(helps for helps, _ in pairs) < 20 * min(bare for _, bare in pairs), pairs


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert callable(getattr(importlib.import_module(f"openherd.cli.{verb}"), verb))
    parts = PARTS.get(verb, ())
    for command in [[verb, part] for part in parts] or [[verb]]:
        assert main([*command, "--help"]) == 0
        page = capsys.readouterr().out
        assert f"herd {' '.join(command)}" in page
        assert "--json" in page
    if parts:
        assert main([verb, "--help"]) == 0
        page = capsys.readouterr().out
        assert all(part in page for part in parts)


@pytest.mark.parametrize("options", [SamplingParams, EngineOptions])
def test_every_option_is_a_flag_with_help(
    options: type[SamplingParams | EngineOptions], capsys: pytest.CaptureFixture[str]
) -> None:
    main(["run", "--help"])
    page = capsys.readouterr().out
    for name in (field.name for field in fields(options)):
        flag = f"--{name.replace('_', '-')}"
        assert re.search(rf"{flag}\b[^│]*\s{{2,}}\w", page), f"{flag} has no help"


def test_the_flags_own_no_default() -> None:
    assert all(getattr(SAMPLING, name) == getattr(SamplingParams(), name) for name in SamplingParams.__slots__)


@pytest.mark.parametrize(
    ("verb", "shown", "hidden"),
    [
        ("chat", "--logit-bias ID=BIAS,...", ("--n ", "--logprobs")),
        ("run", "Usage: herd run [MODEL] -p TEXT [OPTIONS]", ()),
        ("score", "Usage: herd score [MODEL] FILE [OPTIONS]", ("[required]",)),
    ],
)
def test_help_promises_what_the_verb_takes(
    verb: str, shown: str, hidden: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    main([verb, "--help"])
    page = capsys.readouterr().out
    assert shown in page
    assert not any(word in page for word in hidden)


def test_a_page_names_no_empty_choice_and_no_empty_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "run", "--help"]) == 0
    page = " ".join(line.strip("│╭╰ ") for line in capsys.readouterr().out.splitlines())
    page = " ".join(page.split())
    assert page.startswith("Usage: herd train run")
    assert "[choices: nano, tiny, small, 1b, 8b]" in page
    assert "[choices: tied, separate]" in page
    assert "[default: cosine]" in page
    assert '[default: ""]' not in page
    assert "[default: ()]" not in page


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"openherd {__version__}\n"
    assert main([]) == 0
    assert "Usage: herd" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["chta"], "did you mean chat?"),
        (["dance"], "'dance'; there are chat, run"),
        (["train", "prepar"], "herd train has no part 'prepar'; did you mean prepare?"),
        (["train", "prepare"], "herd train prepare needs --out"),
        (["ls"], "did you mean models?"),
        (["--wat"], "'--wat'"),
        (["run", "smollm2"], "herd run needs a prompt"),
        (["run", "smollm2", "hi"], "try: herd run -p TEXT"),
        (["run", "-p", "x", "--seed"], "--seed needs a value"),
        (["run", "-p", "x", "--top-p", "0"], "--top-p must be a number in (0, 1], not 0.0"),
        (["run", "-p", "x", "--stop", ""], "--stop must be strings of at least one character"),
        (["run", "-p", "x", "--logit-bias", "5=nan"], "--logit-bias[5] must be"),
        (["score"], "try: herd score FILE"),
        (["chat", "--temprature", "1"], "Did you mean --temperature?"),
        (["chat", "--temperature", "nan"], "--temperature must be a number in [0, 100], not nan"),
        (["chat", "--temperature", "warm"], "--temperature must be a number, not 'warm'"),
        (["chat", "--threads", "0"], "--threads must be a whole number from 1"),
        (["chat", "--threads", "abc"], "--threads must be a whole number, not 'abc'"),
        (["chat", "--kv-dtype", "bf16"], '"f16", "f32"'),
        (["chat", "--logit-bias", "x"], "--logit-bias is ID=BIAS"),
        (["chat", "--n", "2"], "--n has no effect in a conversation; herd run has it"),
        (["chat", "a", "b"], "herd chat has no use for 'b'"),
        (["chat", "no-such-model.gguf"], "no-such-model.gguf"),
        (["rm"], "herd rm needs NAME"),
        (["rm", "smollm2"], "no fetched model is called 'smollm2'"),
        (["pull", "smolm"], "did you mean smollm2?"),
        (["pull", "hf:org"], "no ORG/REPO follows hf:"),
    ],
)
def test_a_wrong_command_is_one_or_two_lines_and_status_2(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    lines = printed.err.splitlines()
    assert lines[0].startswith("herd: error: ")
    assert said in printed.err
    assert len(lines) <= 2

    assert main([*arguments, "--json"]) == 2
    printed = capsys.readouterr()
    error = json.loads(printed.out)["error"]
    assert error.keys() == {"type", "message", "hint"}
    assert said in f"{error['message']} {error['hint']}"


def test_work_that_fails_is_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pull", "--offline"]) == 1
    assert "--offline forbids" in capsys.readouterr().err


def test_an_error_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chat", "\x1b[2J.gguf"]) == 2
    assert "\x1b" not in capsys.readouterr().err


def test_models_rm_pull_speak_json(
    default_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "--json"]) == 0
    row = next(row for row in json.loads(capsys.readouterr().out)["models"] if row["name"] == "smollm2")
    assert (row["name"], row["here"], row["path"]) == ("smollm2", False, None)
    monkeypatch.setenv("OPENHERD_HOME", str(default_model.parents[2]))
    assert main(["pull", "--json", "--offline"]) == 0
    assert json.loads(capsys.readouterr().out)["path"] == str(default_model)
    assert main(["models"]) == 0
    assert str(default_model) in capsys.readouterr().out


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m openherd --help | (exec <&-; sleep 1); echo ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "141\n"
    assert done.stderr == ""


def test_ctrl_c_is_quiet(default_model: Path) -> None:
    environment = {**os.environ, "OPENHERD_HOME": str(default_model.parents[2])}
    child = subprocess.Popen(
        [sys.executable, "-m", "openherd", "chat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    time.sleep(3)  # it has loaded and waits for a line; earlier would do as well
    assert child.poll() is None
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=20)
    assert (child.returncode, out, err) == (130, "", "")
