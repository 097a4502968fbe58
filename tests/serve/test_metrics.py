"""S13: the metrics are true, and name nothing that a client wrote."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from openherd.serve.api.parameters import REQUESTS
from tests.serve.client import PARIS
from tests.serve.conftest import serving
from tests.serve.test_overload import LONG, wait_until

CHAT = "/v1/chat/completions"


@pytest.mark.usefixtures("default_model")
def test_s13_token_counters_are_the_sum_of_usage() -> None:
    with serving("--context", "2048") as server:

        def usage(number: int) -> dict[str, Any]:
            body = {"messages": PARIS * (1 + number % 3), "max_tokens": 5, "n": 1 + number % 3, "seed": number}
            if number % 2:
                return server.post(CHAT, body).json["usage"]
            return server.events(CHAT, {**body, "stream_options": {"include_usage": True}})[-2]["usage"]

        with ThreadPoolExecutor(8) as pool:
            usages = list(pool.map(usage, range(40)))
        secret = "an-unusual-word-of-a-client"
        assert server.get(f"/{secret}").status == 404
        assert server.chat(model=secret).status == 404
        assert server.send("BREW", f"/{secret}").status in (400, 404, 405)
        with server.streaming(CHAT, LONG) as response:
            assert response.read(500)
        # One choice of two ends at its stop before the client leaves: its tokens count as well.
        counted = {"prompt": ["1, 2, 3,", "Once upon a time"], "stop": [" 4"]}
        body = {name: value for name, value in {**LONG, **counted}.items() if name != "messages"}
        with server.streaming("/v1/completions", body) as response:
            assert b'"finish_reason":"stop"' in response.read(2500)
        wait_until(lambda: server.metrics()["openherd_cancelled_requests_total"] == 2)
        metrics = server.metrics()
        assert metrics["openherd_prompt_tokens_total"] == sum(u["prompt_tokens"] for u in usages)
        assert metrics["openherd_completion_tokens_total"] == sum(u["completion_tokens"] for u in usages)
        cached = sum(u["prompt_tokens_details"]["cached_tokens"] for u in usages)
        assert metrics["openherd_cached_tokens_total"] == cached > 0
        drawn = metrics["openherd_completion_tokens_total"] + metrics["openherd_cancelled_completion_tokens_total"]
        assert server.engine("generated_tokens_total") == drawn
        answered = {k: v for k, v in metrics.items() if k.startswith("openherd_http_requests_total")}
        assert sum(v for k, v in answered.items() if CHAT in k and 'status="200"' in k) == 41
        assert secret not in server.get("/metrics").body.decode()
        assert "BREW" not in server.get("/metrics").body.decode()
        assert metrics["openherd_time_to_first_token_seconds_count"] > 0


@pytest.mark.usefixtures("default_model")
def test_s13_gauges_and_times_are_true() -> None:
    """Two of five run and three wait; blocks are held and given back; every answer has its times."""
    with serving("--context", "2048", "--max-seqs", "2") as server, ThreadPoolExecutor(5) as pool:
        body = {"messages": PARIS, "max_tokens": 100, "ignore_eos": True, "temperature": 0}
        answers = [pool.submit(server.post, CHAT, body) for _ in range(5)]
        wait_until(lambda: (server.engine("running"), server.engine("waiting")) == (2, 3))
        assert server.metrics()["openherd_requests"] == 5
        held = server.engine("used_blocks")
        assert held == server.engine("total_blocks") - server.engine("free_blocks") > 0
        assert [answer.result().json["usage"]["completion_tokens"] for answer in answers] == [100] * 5
        wait_until(lambda: server.engine("used_blocks") == 0)
        metrics = server.metrics()
        longest = max(answer.result().seconds for answer in answers)
        for name in ("time_to_first_token_seconds", "time_per_output_token_seconds"):
            assert metrics[f"openherd_{name}_count"] == metrics[f'openherd_model_{name}_count{{model="smollm2"}}'] == 5
            assert metrics[f"openherd_{name}_sum"] == metrics[f'openherd_model_{name}_sum{{model="smollm2"}}'] > 0
        assert metrics["openherd_time_to_first_token_seconds_sum"] < 5 * longest
        assert metrics["openherd_time_per_output_token_seconds_sum"] * 99 < 5 * longest
        for kind in ("prompt", "completion", "cached"):
            total = metrics[f"openherd_{kind}_tokens_total"]
            assert metrics[f'openherd_model_{kind}_tokens_total{{model="smollm2"}}'] == total


def test_what_is_measured_is_said_to_be(server: Any) -> None:
    text = server.get("/metrics").body.decode()
    assert server.get("/metrics").headers["content-type"].startswith("text/plain; version=0.0.4")
    names = {line.split()[2] for line in text.splitlines() if line.startswith("# HELP")}
    assert len(names) >= 15


def test_the_openapi_document_describes_every_body(server: Any) -> None:
    document = server.get("/openapi.json").json
    posts = {path: entry["post"] for path, entry in document["paths"].items() if "post" in entry}
    assert set(posts) == set(REQUESTS)
    for post in posts.values():
        name = post["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        assert document["components"]["schemas"][name]["additionalProperties"] is False
