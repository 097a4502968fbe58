"""The bars, judged on figures made up to lie on either side of each, and the page that is made of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench import results
from bench.bars import BARS
from bench.server_peers import FIGURES


def figures(ours: float, **peers: float) -> dict[str, Any]:
    def summary(value: float) -> dict[str, float]:
        return {"median": value, "low": value, "high": value, "runs": 3}

    rows: dict[str, Any] = {"openherd": summary(ours)}
    for name, value in peers.items():
        rows[name.replace("_cpp", ".cpp")] = summary(value) | {"ratio": summary(ours / value)}
    return rows


def occasion(factor: float) -> dict[str, Any]:
    """Every bar is reached with factor 1.01, and missed with 0.99."""
    peers = {
        "model": "m.gguf",
        "machine": {"cpu": "c", "threads": 2, "isa": "avx512"},
        "versions": {"openherd": "0"},
        "left_out": {},
        "weight_bytes_per_token": 10**8,
        "kv_bytes_per_token": 0,
        "layer_products_per_token": 10**8,
        "limits": {
            "read_2": {"median": 100e8 / 0.85, "low": 1.0, "high": 1.0},
            "int8_2": {"median": 1500e8 / 0.45, "low": 1.0, "high": 1.0},
        },
        "works": {
            "decode": figures(100 * factor, llama_cpp=50, ik_llama_cpp=62.5),
            "prefill_512": figures(1500 * factor, llama_cpp=300, openvino=1000),
            "decode_at_4096": figures(100 * factor**2),
            "decode_batch_32": figures(400 * factor, llama_cpp=100),
        },
    }
    avx2 = peers | {"works": {"decode": figures(50 * factor, llama_cpp=50)}}
    bench = {
        "model": {"name": "m", "numerics_id": "n", "file_bytes": 10**8, "kv_bytes_per_token": 20000},
        "warnings": [],
        "measurements": [
            {"name": name, "value": value, "unit": "u", "limit": None, "of_limit": None}
            for name, value in {
                "cold_start": 0.45 / factor,
                "peak_memory": (130 + 40.96 + 60) / factor,
                "python_share": 5 / factor,
                "python_share_batch_32": 5 / factor,
            }.items()
        ],
    }
    stages = {
        "peers": peers,
        "batch": peers,
        "long": peers,
        "avx2": avx2,
        "large_q4_0": peers,
        "large_q4_k": peers,
        "bench": bench,
        "size": {"installed_bytes": 180e6 / factor, "files": 1},
        "quality": {
            "native": {"mean_kl": 0.003, "same_top": 0.961},
            "llama.cpp": {"same_top": 0.963},
            "kl_ratio": 1.05 / factor,
        },
        "server": server_stage(factor),
        "speculation": {"median_ratio": {"copy": 1.8 * factor, "chat": 0.98 * factor}, "equal": True},
    }
    return {"time": "2026-11-24 03:00 UTC", "commit": "abc", "stages": stages}


def server_stage(factor: float) -> dict[str, Any]:
    def load(**ratios: float) -> dict[str, Any]:
        figures = {name: {"median": 1.0, "low": 1.0, "high": 1.0, "runs": 2} for name in FIGURES}
        return {
            "servers": {"openherd": figures, "llama.cpp": figures},
            "ratios": {name: {"median": ratios.get(name, 1.0), "low": 1.0, "high": 9.0, "runs": 2} for name in FIGURES},
            "same_tokens": True,
            "failed": {"openherd": 0, "llama.cpp": 0},
        }

    users = load(output_throughput=3 * factor)
    return {
        "model": "m.gguf",
        "machine": {"cpu": "c", "threads": 2, "isa": "avx512"},
        "versions": {"openherd": "0"},
        "prompt_words": "9",
        "answer_tokens": "9",
        "loads": {"users_16": users, "users_32": users, "open_loop": {"rate": 2.0, **load(ttft_p99=factor)}},
    }


def test_a_server_that_failed_or_wrote_other_numbers_of_tokens_reaches_no_bar() -> None:
    for change in ({"same_tokens": False}, {"failed": {"openherd": 1, "llama.cpp": 0}}):
        stages = occasion(1.01)["stages"]
        for load in stages["server"]["loads"].values():
            load.update(change)
        assert not any(bar.judge(stages)[1] for bar in BARS if bar.id == "server")


@pytest.mark.parametrize("bar", BARS, ids=lambda bar: f"{bar.id} {bar.what}")
def test_each_bar_tells_just_reached_from_just_missed(bar: Any) -> None:
    assert bar.judge(occasion(1.01)["stages"])[1]
    assert not bar.judge(occasion(0.99)["stages"])[1]


def test_different_bits_fail_speculation() -> None:
    stages = occasion(1.01)["stages"]
    stages["speculation"]["equal"] = False
    assert not any(bar.judge(stages)[1] for bar in BARS if bar.id == "P8")


def test_the_page_keeps_every_occasion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "ROOT", tmp_path)
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    monkeypatch.setattr(results, "PAGE", tmp_path / "RESULTS.md")
    (tmp_path / "1.json").write_text(json.dumps(occasion(1.01)))
    partial = {
        "time": "later",
        "commit": "def",
        "stages": {"size": {"failed": "no network"}, "peers": {"failed": "died"}},
    }
    (tmp_path / "2.json").write_text(json.dumps(partial))
    results.write()
    page = (tmp_path / "RESULTS.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| P1 | decode against llama.cpp ")]
    assert len(rows) == 1
    assert rows[0].endswith("| - | 2.02 (2.02-2.02) yes |"), "the newest first; a stage that failed is not a pass"
    assert "size: failed, no network" in page
    assert "open_loop of 2.00 requests/s; failed: 0; same numbers of tokens: True" in page
