"""herd bench --server against a stand-in: what is measured, from when, and what a hostile server cannot do to it."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from statistics import mean
from typing import Any

import pytest

from openherd.errors import HerdError, InputError, OptionError
from openherd.workshop.load import run as load_run
from openherd.workshop.load.events import MAX_EVENT_BYTES, EventError, EventParser
from openherd.workshop.load.lengths import Lengths
from openherd.workshop.load.options import LoadOptions
from openherd.workshop.load.plan import arrivals, asks
from openherd.workshop.load.report import LoadReport, run_load
from openherd.workshop.load.summary import percentile
from openherd.workshop.load.target import Target
from tests.unit.cli.conftest import Herd, herd  # noqa: F401
from tests.unit.workshop.stand_in_server import RAW, StandIn, standing_in


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    with standing_in() as server:
        yield server


def load(url: str, **options: Any) -> LoadReport:
    chosen = {"users": 2, "requests": 4, "warmup": 0, "timeout": 10.0, **options}
    return run_load("m", LoadOptions(server=url, **chosen), say=lambda text: None)


def values(report: LoadReport) -> dict[str, float]:
    return {m.name: m.value for m in report.measurements}


def test_a_good_server_is_measured(stand_in: StandIn) -> None:
    """Five pieces 20 ms apart, of which the server says that they are 10 tokens."""
    report = load(stand_in.url("good"), requests=6, slo_ttft=10_000.0, slo_tpot=0.001, ignore_eos=True)
    found = values(report)
    assert report.requests == {"sent": 6, "answered": 6, "failed": 0}
    assert report.tokens == {"prompt": 42, "completion": 60}
    assert 20 <= found["ttft_p50"] <= found["ttft_p99"]
    assert found["itl_p50"] >= 15
    assert found["tpot_p50"] == pytest.approx(found["itl_p50"] * 4 / 9, rel=0.5)
    assert found["e2e_p50"] >= 100
    assert found["goodput"] == 0, "every answer missed --slo-tpot"
    assert found["output_throughput"] == pytest.approx(10 * found["request_throughput"])
    assert 0 < found["client_cores"] < 2
    assert not report.errors
    assert stand_in.most_at_once == 2
    body = stand_in.bodies[0]
    assert body["stream_options"] == {"include_usage": True}
    assert body["ignore_eos"] is True
    assert body["model"] == "m"
    ttft = next(m for m in report.measurements if m.name == "ttft_p50")
    assert (ttft.limit, ttft.of_limit) == (10_000, pytest.approx(10_000 / ttft.value))


def test_latency_counts_from_when_a_request_was_due(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes 50 ms and one at a time, asked 200 times a second: the requests wait for each other, be it
    there or, with a single connection, here. A client that counted from its sending would report 50 ms."""
    there = values(load(stand_in.url("one-at-a-time"), users=None, rate=200.0, requests=20))
    assert there["ttft_p50"] > 300
    monkeypatch.setattr(load_run, "MAX_OPEN", 1)
    report = load(stand_in.url("one-at-a-time"), users=None, rate=200.0, requests=20)
    assert values(report)["ttft_p50"] > 300
    assert values(report)["send_delay_p99"] > 300
    assert any("waited for a connection" in warning for warning in report.warnings)


FAULTS = {
    "not-http": "garbage",
    "nothing": "cut off",
    "half-head": "cut off",
    "not-sse": "garbage",
    "not-json": "garbage",
    "not-a-chunk": "garbage",
    "a-list": "garbage",
    "deep": "garbage",
    "bad-usage": "garbage",
    "bad-chunk": "garbage",
    "cut": "cut off",
    "cut-length": "cut off",
    "no-finish": "cut off",
    "error-event": "error event",
    "gzip": "garbage",
    "500": "http 500",
    "upgrade": "garbage",
    "endless-head": "garbage",
    "endless-event": "garbage",
    "never": "timeout",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_a_server_does_wrong_is_counted_by_its_kind(stand_in: StandIn, fault: str) -> None:
    with pytest.raises(HerdError, match=f"none of 2 requests was answered; 2 x {FAULTS[fault]}") as failed:
        load(stand_in.url(fault), requests=2, timeout=0.5 if fault == "never" else 10.0)
    assert stand_in.done[fault] == 2, "the fault did not happen"
    assert "\x1b" not in str(failed.value)


@pytest.mark.parametrize("kind", ["no-usage", "no-done", "no-length", "continue"])
def test_odd_but_whole_answers_count(stand_in: StandIn, kind: str) -> None:
    assert kind in RAW
    report = load(stand_in.url(kind), requests=2)
    assert report.requests["answered"] == 2
    assert report.tokens["completion"] == (20 if kind == "no-length" else 10)
    assert report.server["reports_usage"] is (kind == "no-length")
    assert any("does not report usage" in warning for warning in report.warnings) is (kind != "no-length")


def test_a_user_who_is_told_to_come_back_later_does(stand_in: StandIn) -> None:
    report = load(stand_in.url("busy-once"), users=1, requests=2)
    assert report.errors == {"http 429": {"count": 1, "said": "come back later"}}
    assert report.requests == {"sent": 2, "answered": 1, "failed": 1}
    assert stand_in.moments[1] - stand_in.moments[0] >= 1


def test_no_other_address_is_contacted(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither where a redirect points nor where the environment's proxy is."""
    with standing_in() as other:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{other.port}")
        with pytest.raises(HerdError, match="http 307"):
            load(stand_in.url(f"redirect-{other.port}"))
        assert load(stand_in.url("good")).requests["answered"] == 4
        assert not other.moments


def test_a_duration_ends_the_load(stand_in: StandIn) -> None:
    closed = load(stand_in.url("good"), requests=None, duration=0.5)
    opened = load(stand_in.url("good"), requests=None, users=None, rate=40.0, duration=0.5)
    assert 2 < closed.requests["answered"] < 20
    assert 5 < opened.requests["answered"] < 50


def test_nobody_there_is_said_at_once(herd: Herd) -> None:  # noqa: F811
    result = herd("bench", "--server", "http://127.0.0.1:9", "--users", "1")
    assert result.status == 1
    assert "no connection" in result.err


def test_the_documents_contract_and_the_key(
    stand_in: StandIn,
    herd: Herd,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENHERD_API_KEY", "secret-key")
    result = herd("bench", "--server", stand_in.url("good"), "--users", "2", "--requests", "4", "--json")
    assert result.status == 0, result.err
    document = json.loads(result.out)
    assert document.keys() == {
        "machine", "server", "load", "measurements", "requests", "tokens", "errors", "warnings",
    }  # fmt: skip
    assert all(m.keys() >= {"name", "value", "unit", "limit", "of_limit"} for m in document["measurements"])
    assert document["server"]["model"] == "stand-in", "the first model that the server lists"
    assert all(b"Authorization: Bearer secret-key\r\n" in head for head in stand_in.heads)
    assert len(stand_in.bodies) == 4 + LoadOptions().warmup
    assert "secret-key" not in result.out + result.err
    shown = herd("bench", "--server", stand_in.url("good"), "--users", "2", "--requests", "4", "--slo-ttft", "9e4")
    assert "4 of 4 requests answered" in shown.out
    assert "within 90,000 ms" in shown.out


def test_a_server_without_models_is_said(stand_in: StandIn, herd: Herd) -> None:  # noqa: F811
    result = herd("bench", "--server", stand_in.url("no-models"), "--users", "1")
    assert result.status == 1
    assert "lists no models" in result.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--users", "2"), "--users is about a server's load"),
        (("--server", "http://a"), "either --rate or --users"),
        (("--server", "http://a", "--users", "2", "--rate", "1"), "either --rate or --users"),
        (("--server", "http://a", "--users", "0"), "--users must be a number from 1"),
        (("--server", "http://a", "--rate", "nan"), "--rate must be a number"),
        (("--server", "http://a", "--users", "1", "--quick"), "--quick"),
        (("--server", "http://a", "--users", "1", "--prompt-words", "zipf:3:4"), "--prompt-words is a number, uniform"),
        (("--server", "http://a", "--users", "1", "--answer-tokens", "uniform:9:3"), "--answer-tokens=uniform"),
        (("--server", "ftp://a", "--users", "1"), "--server is http://"),
        (("--server", "http://u:p@a", "--users", "1"), "--server is http://"),
        (("--server", "http://a:99999", "--users", "1"), "--server"),
        (("--server", "http://a", "--users", "1", "--prompts", "no-such.jsonl"), "no-such.jsonl"),
    ],
    ids=str,
)
def test_wrong_loads_are_refused(herd: Herd, arguments: tuple[str, ...], said: str) -> None:  # noqa: F811
    result = herd("bench", "m" if "--quick" not in arguments else "", *arguments)
    assert result.status == 2, result.err
    assert said in result.err
    assert result.out == ""


def test_arrivals_are_poisson() -> None:
    """Mean and standard deviation of the gaps of an exponential distribution are equal."""
    moments = list(islice(arrivals(4.0, 1), 20_000))
    gaps = [after - before for before, after in zip([0.0, *moments], moments, strict=False)]
    assert mean(gaps) == pytest.approx(0.25, rel=0.03)
    assert mean((gap - 0.25) ** 2 for gap in gaps) ** 0.5 == pytest.approx(0.25, rel=0.05)
    assert moments == list(islice(arrivals(4.0, 1), 20_000))


def test_lengths_are_as_declared() -> None:
    rng = random.Random(0)
    uniform = [Lengths.parse("x", "uniform:3:9", 100).draw(rng) for _ in range(1000)]
    assert (min(uniform), max(uniform)) == (3, 9)
    skewed = sorted(Lengths.parse("x", "lognormal:50:1", 400).draw(rng) for _ in range(4001))
    assert skewed[2000] == pytest.approx(50, rel=0.15)
    assert skewed[0] >= 1
    assert skewed[-1] == 400
    assert Lengths.parse("x", "12", 100).draw(rng) == 12
    for wrong in ("", "a", "uniform:1", "uniform:0:5", "1.5", "nan", "lognormal:5:9", "uniform:1:1e9"):
        with pytest.raises(OptionError, match=r"^x"):
            Lengths.parse("x", wrong, 100)


def test_prompts_come_from_a_file_and_repeat(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "a", "max_tokens": 3}\n\n{"messages": [{"role": "user", "content": "b"}]}\n')
    options = LoadOptions(server="http://a", users=1, prompts=str(path), answer_tokens="9")
    drawn = list(islice(asks(options, "load"), 3))
    assert [(ask.messages[0]["content"], ask.max_tokens) for ask in drawn] == [("a", 3), ("b", 9), ("a", 3)]
    for wrong in ("", "[]", "{}", "{half", '{"prompt": 1}', '{"prompt": "a", "n": 2}', '{"messages": []}',
                  '{"prompt": "a", "max_tokens": true}', '{"prompt": "a", "messages": [{}]}'):  # fmt: skip
        path.write_text(wrong)
        with pytest.raises(InputError, match=r"prompts\.jsonl"):
            next(asks(options, "load"))


def test_the_same_seed_asks_the_same() -> None:
    options = LoadOptions(server="http://a", users=1, seed=3)
    first = list(islice(asks(options, "load"), 5))
    assert first == list(islice(asks(options, "load"), 5))
    assert first != list(islice(asks(options, "warmup"), 5)), "the warm-up would fill the cache for the load"


def test_events_survive_any_cut() -> None:
    stream = b': hello\r\ndata: {"a": 1}\r\n\r\nid: 3\ndata:x\ndata: y\n\ndata: [DONE]\n\n'
    expected = [b'{"a": 1}', b"x\ny", b"[DONE]"]
    for size in range(1, len(stream)):
        parser = EventParser()
        pieces = [stream[i : i + size] for i in range(0, len(stream), size)]
        assert [data for piece in pieces for data in parser.feed(piece)] == expected
    with pytest.raises(EventError, match="longer"):
        list(EventParser().feed(b"data: " + b"a" * (MAX_EVENT_BYTES + 1)))
    with pytest.raises(EventError):
        list(EventParser().feed(b"data:\n" * (MAX_EVENT_BYTES + 1)))


def test_a_line_in_single_bytes_costs_no_more_than_its_length() -> None:
    """Joined again at each piece, half a megabyte would be copied 500,000 times: minutes."""
    parser = EventParser()
    started = time.process_time()
    for _ in range(MAX_EVENT_BYTES // 2):
        assert list(parser.feed(b"d")) == []
    with pytest.raises(EventError, match="longer"):
        list(parser.feed(b"d"))
    assert time.process_time() - started < 10


def test_percentiles_are_values_that_occurred() -> None:
    assert [percentile([1.0, 2.0, 3.0, 4.0], share) for share in (1, 50, 51, 99, 100)] == [1, 2, 3, 4, 4]


def test_addresses() -> None:
    target = Target.parse("http://[::1]:8080/", {"OPENHERD_API_KEY": ""})
    assert (target.host, target.port, target.path, target.key, target.tls) == ("::1", 8080, "/v1", None, None)
    assert b"\r\nHost: [::1]:8080\r\n" in target.get("/models")
    assert Target.parse("https://a/api/v3", {}).port == 443
    with pytest.raises(InputError, match="OPENHERD_API_KEY"):
        Target.parse("http://a", {"OPENHERD_API_KEY": "a\r\nX: y"})
