"""D1 to D4 and S5 over HTTP: the same text and the same bits of log-probabilities, whatever else the server does."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.serve.client import check_chat_grammar
from tests.serve.conftest import FULL, Server, serving

CHAT = "/v1/chat/completions"
NUM_REQUESTS = 64 if FULL else 16
# A token's keys and values take 30 layers x 2 x 3 heads x 64 x 2 bytes: room for 1,300 of them.
KV_BYTES = 1300 * 23040
WORDS = Path(__file__).parents[1].joinpath("parity", "alice.txt").read_text(encoding="utf-8").split()


def requests() -> list[dict[str, Any]]:
    """Prompts of 20 to 300 words, half of them greedy, half drawn at T=1 with two choices."""
    rng = random.Random(7)
    made = []
    for number in range(NUM_REQUESTS):
        length, start = rng.randint(20, 300), rng.randrange(len(WORDS) - 300)
        made.append(
            {
                "messages": [{"role": "user", "content": " ".join(WORDS[start : start + length])}],
                "max_tokens": 24,
                "logprobs": True,
                "top_logprobs": 2,
                "ignore_eos": True,
                **({"temperature": 0} if number % 2 else {"temperature": 1, "seed": number, "n": 2}),
            }
        )
    return made


def answers(server: Server, asked: list[dict[str, Any]], *, at_once: int = 1) -> list[Any]:
    """The choices of each request, in the requests' order; asked in a shuffled one when several run at once."""
    order = list(range(len(asked)))
    if at_once > 1:
        random.Random(1).shuffle(order)
    with ThreadPoolExecutor(at_once) as pool:
        given = list(pool.map(lambda i: server.post(CHAT, asked[i]), order))
    assert all(answer.status == 200 for answer in given), [answer.body for answer in given if answer.status != 200]
    choices = {i: answer.json["choices"] for i, answer in zip(order, given, strict=True)}
    assert all(len(entry["logprobs"]["content"]) >= 20 for i in choices for entry in choices[i])
    return [choices[i] for i in range(len(asked))]


@pytest.fixture(scope="module")
def alone(default_model: Path) -> Iterator[list[Any]]:
    """Each request alone, on one thread, with nothing in the cache to find."""
    with serving("--threads", "1", "--no-prefix-caching") as server:
        given = answers(server, requests())
        assert server.engine("max_batch_seqs") <= 2
        yield given


def test_d1_d2_d3_under_load_warm_and_streamed(alone: list[Any]) -> None:
    """8 at once in another order, on two threads, in another process; again from a warm cache; and streamed."""
    with serving("--threads", "2") as server:
        assert answers(server, requests(), at_once=8) == alone
        assert server.engine("max_batch_seqs") >= 8, "the load was no load"
        assert server.engine("split_prompts_total") > 0, "no prompt was prefilled in chunks"
        cached = server.engine("cached_tokens_total")
        assert answers(server, requests(), at_once=8) == alone
        assert server.engine("cached_tokens_total") > cached + 1000, "the cache was cold"
        for asked, expected in zip(requests()[:6], alone, strict=False):
            streamed, _ = check_chat_grammar(server.events(CHAT, asked), n=asked.get("n", 1))
            assert [choice.text for choice in streamed] == [entry["message"]["content"] for entry in expected]
            assert [choice.tokens for choice in streamed] == [entry["logprobs"]["content"] for entry in expected]


def test_s5_an_exhausted_pool_changes_nothing(default_model: Path) -> None:
    """S5, D1: every request completes, bit-equal to alone, while sequences are preempted and computed again."""
    asked = [
        {"messages": [{"role": "user", "content": f"Write about {word}."}], "temperature": 0, "max_tokens": 150}
        for word in WORDS[: 3 * NUM_REQUESTS : 3]
    ]
    asked = [{**body, "ignore_eos": True, "logprobs": True, "top_logprobs": 1} for body in asked]
    with serving("--context", "512", "--kv-memory", str(KV_BYTES)) as server:
        alone = answers(server, asked[:8])
        assert server.engine("preemptions_total") == 0
        assert answers(server, asked, at_once=NUM_REQUESTS)[:8] == alone
        assert server.engine("preemptions_total") > 0, "the pool was not exhausted"


def test_d4_many_choices_of_many_seeds(server: Server) -> None:
    """n choices drawn together are those drawn under load, and a seed alone tells them apart."""
    asked = [
        {"messages": [{"role": "user", "content": "Invent a word."}], "temperature": 1, "seed": seed, "n": 4}
        for seed in range(NUM_REQUESTS // 4)
    ]
    asked = [{**body, "max_tokens": 12, "logprobs": True, "ignore_eos": True} for body in asked]

    def texts(at_once: int) -> list[list[Any]]:
        with ThreadPoolExecutor(at_once) as pool:
            return [answer.json["choices"] for answer in pool.map(lambda body: server.post(CHAT, body), asked)]

    first = texts(1)
    assert texts(8) == first
    assert len({entry["message"]["content"] for choices in first for entry in choices}) > NUM_REQUESTS // 2
