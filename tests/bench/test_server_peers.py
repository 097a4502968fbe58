"""bench.server_peers without servers: which way ratios point, and at which rate the open loop asks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bench import server_peers
from bench.server_peers import FIGURES, Served, compare, table

ANSWERED = {"openherd": 8.0, "llama.cpp": 2.0}  # requests a second
ASKED: list[list[str]] = []


@contextmanager
def served(name: str) -> Iterator[Served]:
    yield Served(name, name)


def bench(url: str, arguments: list[Any]) -> dict[str, Any]:
    """Ours does four times as much, in a quarter of the time."""
    ASKED.append([url, *map(str, arguments)])
    rate = ANSWERED[url]
    figures = {name: rate if more else 100 / rate for name, (more, _) in FIGURES.items()}
    return {
        "measurements": [{"name": name, "value": value} for name, value in figures.items()],
        "tokens": {"prompt": 3, "completion": 4},
        "requests": {"failed": 0},
    }


def test_both_are_asked_the_same_in_turn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(server_peers, "herd_serve", lambda *a: served("openherd"))
    monkeypatch.setattr(server_peers, "llama_server", lambda *a: served("llama.cpp"))
    monkeypatch.setattr(server_peers, "_bench", bench)
    monkeypatch.setattr(server_peers, "LLAMA_SERVER", "/bin/true")
    (tmp_path / "m.gguf").write_bytes(b"abc")
    document = compare(tmp_path / "m.gguf", [2, 4], 2, 1, None)
    assert document["loads"].keys() == {"users_2", "users_4", "open_loop"}
    for load in document["loads"].values():
        assert all(ratio["median"] == 4 for ratio in load["ratios"].values()), "more than 1 is in favour of openherd"
        assert load["same_tokens"] is True
    assert document["loads"]["open_loop"]["rate"] == pytest.approx(0.7 * 2)
    assert [asked[0] for asked in ASKED] == ["openherd", "llama.cpp"] * 6
    for ours, peers in zip(ASKED[::2], ASKED[1::2], strict=True):
        assert ours[1:] == peers[1:]
    assert any("open_loop of 1.40 requests/s" in line for line in table(document))


def test_a_load_that_failed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client's own refusal of an address where nobody is."""
    with pytest.raises(RuntimeError, match="no connection"):
        server_peers._bench("http://127.0.0.1:9", ["--users", 1])
