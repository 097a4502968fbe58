"""herd bench: the document's contract, what is left out and said, and what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from openherd.errors import EngineError
from openherd.kernels.native import NativeModel
from openherd.workshop.bench import fresh_process, run
from openherd.workshop.bench.core_time import CoreTime
from openherd.workshop.bench.machine import OtherWork
from tests.unit.cli.conftest import Herd

KEYS = {"name", "value", "unit", "limit", "of_limit"}


def names(document: dict[str, Any]) -> list[str]:
    return [m["name"] for m in document["measurements"]]


def test_document_has_the_contracts_keys(herd: Herd, tiny_model: Path) -> None:
    result = herd(
        "bench", tiny_model, "--repetitions", "2", "--threads", "2", "--only", "decode", "--only", "batch", "--json"
    )
    assert result.status == 0, result.err
    document = json.loads(result.out)
    assert document.keys() >= {"machine", "measurements"}
    assert all(m.keys() >= KEYS for m in document["measurements"])
    by_name = {m["name"]: m for m in document["measurements"]}
    assert by_name.keys() >= {"read_1_thread", "int8_2_threads", "decode", "decode_batch_4", "decode_batch_32"}
    decode = by_name["decode"]
    assert decode["unit"] == "tok/s"
    assert len(decode["runs"]) == 2
    assert decode["low"] <= decode["value"] <= decode["high"]
    assert decode["of_limit"] == pytest.approx(decode["value"] / decode["limit"])
    assert 0 < by_name["python_share"]["value"] < 100
    assert document["machine"]["threads"] == 2
    assert "round 2 of 2" in result.err


def test_table_shows_each_share(herd: Herd, tiny_model: Path) -> None:
    result = herd("bench", tiny_model, "--repetitions", "1", "--only", "decode")
    assert result.status == 0, result.err
    line = next(line for line in result.out.splitlines() if line.startswith("decode "))
    assert "tok/s" in line
    assert line.endswith("read rate")


def test_a_context_that_is_too_short_is_said_and_skipped(herd: Herd, tiny_model: Path) -> None:
    """The tiny model's context is 512: neither a prompt of 512 and its token nor the long context fit."""
    result = herd(
        "bench", tiny_model, "--repetitions", "1", "--only", "prefill", "--only", "long", "--only", "memory", "--json"
    )
    document = json.loads(result.out)
    assert document["skipped"].keys() == {"prefill_512", "long context", "peak_memory"}
    assert "512" in document["skipped"]["long context"]
    assert "long context is skipped" in result.err
    assert not any("prefill" in name for name in names(document))


def test_fresh_processes_are_timed(herd: Herd, tiny_model: Path) -> None:
    document = json.loads(herd("bench", tiny_model, "--repetitions", "1", "--only", "start", "--json").out)
    by_name = {m["name"]: m for m in document["measurements"]}
    assert 0 < by_name["interpreter_start"]["value"] < by_name["cold_start"]["value"]
    assert by_name["cold_start"]["limit"] > by_name["interpreter_start"]["value"]


def test_peak_memory_is_of_the_child_alone(tiny_model: Path) -> None:
    ballast = bytearray(512 << 20)
    ballast[:: 1 << 12] = b"1" * (len(ballast) >> 12)
    peak = fresh_process.peak_bytes(tiny_model, "hello", 64, 1, chat=False)
    assert 10 << 20 < peak < len(ballast)
    assert fresh_process.own_peak_bytes() > len(ballast)


def test_a_child_that_fails_is_an_error_with_its_words(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="no-such"):
        fresh_process.cold_start_s(tmp_path / "no-such.gguf", 1)


def test_core_time_leaves_nothing_behind() -> None:
    before = dict(vars(NativeModel))
    with CoreTime():
        assert vars(NativeModel)["forward"] is not before["forward"]
    assert dict(vars(NativeModel)) == before


def test_other_work_is_none_of_ours() -> None:
    others = OtherWork()
    sum(range(5_000_000))
    cores = others.cores()
    assert cores is None or cores >= 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--repetitions", "0"), "--repetitions must be a whole number from 1"),
        (("--threads", "0"), "--threads must be a whole number from 1"),
        (("--only", "speed"), "--only must be among limits, prefill"),
        (("--quick=maybe",), "--quick"),
    ],
)
def test_wrong_options_are_refused(herd: Herd, tiny_model: Path, arguments: tuple[str, ...], said: str) -> None:
    result = herd("bench", tiny_model, *arguments)
    assert result.status == 2
    assert said in result.err
    assert result.out == ""


def test_no_such_model(herd: Herd) -> None:
    result = herd("bench", "no-such-model.gguf", "--json")
    assert result.status == 2
    assert "error" in json.loads(result.out)


def test_too_little_memory_is_said_before_anything_is_loaded(
    herd: Herd, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "free_memory", lambda: 1000)
    result = herd("bench", tiny_model)
    assert result.status == 1
    assert "are free" in result.err


def test_a_busy_machine_is_warned_of(herd: Herd, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OtherWork, "cores", lambda self: 1.5)
    result = herd("bench", tiny_model, "--repetitions", "1", "--only", "limits", "--json")
    assert "other work took 1.5 cores" in result.err
    assert json.loads(result.out)["warnings"]


def test_rounds_end_when_their_time_is_spent(herd: Herd, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "BUDGET_S", 0.0)
    result = herd("bench", tiny_model, "--only", "decode", "--json")
    assert "1 of 5 repetitions" in result.err
    decode = next(m for m in json.loads(result.out)["measurements"] if m["name"] == "decode")
    assert len(decode["runs"]) == 1


def test_a_fresh_process_may_keep_compiled_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    code = "import sys; print(sys.dont_write_bytecode, file=sys.stderr)"
    assert fresh_process._run([sys.executable, "-c", code])[1] == "False\n"
