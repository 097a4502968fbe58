"""What lies in deploy/ is true: the example loads, the program takes the command lines, the limits agree."""

from __future__ import annotations

import configparser
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from openherd.cli import main
from openherd.options import EngineOptions
from openherd.serve.configuration import Flags, configure, read_configuration
from openherd.serve.keys import add_key
from openherd.serve.options import ModelOptions, ServeOptions
from openherd.serve.server import LAST_BYTES_S
from tests.serve.conftest import Server

DEPLOY = Path(__file__).parents[2] / "deploy"
EXAMPLE = DEPLOY / "herd.toml"
UNIT = DEPLOY / "openherd.service"
CONTAINERFILE = (DEPLOY / "Containerfile").read_text(encoding="utf-8")


def unit() -> dict[str, str]:
    parser = configparser.RawConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNIT)
    return dict(parser["Service"])


def shown(words: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    """What that command line resolves to, told by the program itself."""
    assert words[0].rpartition("/")[2] == "herd"
    assert main([*words[1:], "--show-config", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_example_loads_and_every_commented_key_is_one(tmp_path: Path) -> None:
    made = configure(
        Flags((), ModelOptions(), ServeOptions(), EngineOptions(), frozenset()), read_configuration(str(EXAMPLE))
    )
    assert [model.model for model, _ in made.models] == ["smollm2"]
    assert made.options == ServeOptions(log="json")
    bare = re.sub(r"^# (?=\[\[|[a-z-]+ = )", "", EXAMPLE.read_text(), flags=re.M)
    (tmp_path / "all.toml").write_text(bare)
    everything = read_configuration(str(tmp_path / "all.toml"))
    assert len(everything.models) == 2
    assert {"memory", "keys", "cors_origin"} <= set(everything.top.serve)


def test_the_units_command_line_parses(capsys: pytest.CaptureFixture[str]) -> None:
    words = shlex.split(unit()["ExecStart"].replace("/etc/openherd/herd.toml", str(EXAMPLE)))
    configuration = shown(words, capsys)
    assert configuration["offline"] is True
    assert configuration["host"] == "127.0.0.1"
    assert float(configuration["drain-limit"]) + 2 * LAST_BYTES_S < int(unit()["TimeoutStopSec"])  # type: ignore[arg-type]
    lines = [line for line in (DEPLOY / "README.md").read_text().splitlines() if line.startswith("ExecStart=/")]
    assert len(lines) == 1
    line = lines[0].removeprefix("ExecStart=").replace("/etc/openherd/herd.toml", str(EXAMPLE))
    assert shown(shlex.split(line), capsys)["keys"] == "%d/keys"


def test_the_containers_command_line_parses_and_may_listen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commands = dict(re.findall(r"^(ENTRYPOINT|CMD) (\[.*\])$", CONTAINERFILE, re.M))
    keys = tmp_path / "keys"
    add_key(str(keys), "alice")
    words = [*json.loads(commands["ENTRYPOINT"]), *json.loads(commands["CMD"])]
    configuration = shown([word.replace("/run/secrets/openherd-keys", str(keys)) for word in words], capsys)
    assert (configuration["host"], configuration["keys"]) == ("0.0.0.0", str(keys))
    ServeOptions(host="0.0.0.0").check_exposure(has_keys=True)
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", CONTAINERFILE, re.M)
    assert all((DEPLOY.parent / name).exists() for line in copied for name in line.split())


def test_the_containers_health_check_tells_a_live_server_from_none(server: Server) -> None:
    _, script = re.search(r'CMD \["python", (.*), (".*")\]', CONTAINERFILE).groups()  # type: ignore[union-attr]
    for port, status in ((server.port, 0), (1, 1)):
        source = json.loads(script).replace("8080", str(port))
        done = subprocess.run([sys.executable, "-c", source], capture_output=True, timeout=60, check=False)
        assert done.returncode == status


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd is not installed (Debian: apt install systemd)"
)
def test_systemd_finds_the_unit_sound_and_hardened(tmp_path: Path) -> None:
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace("/opt/openherd/bin/herd", sys.executable))
    verified = subprocess.run(
        ["systemd-analyze", "verify", copy], capture_output=True, text=True, timeout=60, check=False
    )
    assert (verified.returncode, verified.stderr) == (0, "")
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=15", copy]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
