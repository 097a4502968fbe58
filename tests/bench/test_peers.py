"""The comparison with other programs: a stand-in that speaks the workers' protocol, and one that dies."""

from __future__ import annotations

import os
import stat
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bench import peers
from bench.random_model import LLAMA_3_2_1B, write_model

SMALL = replace(LLAMA_3_2_1B, dim=256, n_layers=2, n_heads=4, n_kv_heads=2, ffn_dim=512, vocab_size=1024)
STAND_IN = """
import json, sys
print(json.dumps({"version": "stand-in 1", "works": []}), flush=True)
for line in sys.stdin:
    request = json.loads(line)
    answer = {"value": 1.0} if request["work"] == "decode" else {"error": "NotImplementedError: no prefill"}
    print(json.dumps(answer), flush=True)
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    write_model(tmp_path / "random.gguf", "Q4_0", config=SMALL)
    return tmp_path / "random.gguf"


def script(path: Path, body: str) -> Path:
    """A program that ignores its arguments and runs `body`."""
    path.write_text(f"#!{sys.executable}\n{body}")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_programs_are_compared_and_what_cannot_be_done_is_named(model: Path, tmp_path: Path) -> None:
    pythons = {
        "openherd": Path(sys.executable),
        "llama.cpp": script(tmp_path / "stand-in", STAND_IN),
        "ik_llama.cpp": script(tmp_path / "dies", "import sys; sys.exit(3)"),
    }
    document = peers.compare(model, ["decode", "prefill_512"], pythons, 1, 2, Path(os.devnull))
    assert document["versions"].keys() == {"openherd", "llama.cpp"}
    decode = document["works"]["decode"]
    assert decode["openherd"]["runs"] == 2, "the round that warms up is dropped"
    assert decode["llama.cpp"]["ratio"]["median"] == pytest.approx(decode["openherd"]["median"])
    assert "ratio" not in decode["openherd"]
    assert document["works"]["prefill_512"].keys() == {"openherd"}
    assert "status 3" in document["left_out"]["ik_llama.cpp"]
    assert "no prefill" in document["left_out"]["llama.cpp prefill_512"]
    assert document["limits"]["read_1"]["runs"] == 4, "the limits are measured beside every piece of work"
    lines = list(peers.table(document))
    assert any("llama.cpp" in line and "openherd is" in line for line in lines)


def test_a_program_that_dies_at_work_is_left_out(model: Path, tmp_path: Path) -> None:
    dying = 'import json, sys\nprint(json.dumps({"version": "1"}), flush=True)\nsys.stdin.readline()'
    pythons = {"openherd": Path(sys.executable), "llama.cpp": script(tmp_path / "dying", dying)}
    document = peers.compare(model, ["decode"], pythons, 1, 1, Path(os.devnull))
    assert "ended" in document["left_out"]["llama.cpp decode"]
    assert document["works"]["decode"].keys() == {"openherd"}


def test_pythons_that_are_not_there_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "PEERS_HOME", tmp_path)
    assert peers.find_pythons([]) == {"openherd": Path(sys.executable)}
    assert peers.find_pythons([f"llama.cpp={sys.executable}"])["llama.cpp"] == Path(sys.executable)
    with pytest.raises(SystemExit, match="NAME=PATH"):
        peers.find_pythons(["no-such=/bin/true"])
