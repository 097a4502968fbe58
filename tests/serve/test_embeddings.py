"""POST /v1/embeddings: the same bits under any load, honest counts, and what is refused."""

from __future__ import annotations

import base64
import struct
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import openai
import pytest

from tests.serve.client import Answer
from tests.serve.conftest import Server, serving
from tests.serve.test_overload import is_empty, wait_until

PATH = "/v1/embeddings"
TOPICS = [
    "The chef chopped onions and garlic for the soup.",
    "Simmer the sauce with tomatoes and basil.",
    "The bank raised its interest rates again this year.",
    "Inflation fell and the stock market went up.",
]


def vectors(answer: Answer) -> list[list[float]]:
    assert answer.status == 200, answer.body
    data = answer.json["data"]
    assert [entry["index"] for entry in data] == list(range(len(data)))
    assert {entry["object"] for entry in data} == {"embedding"}
    return [entry["embedding"] for entry in data]


def test_vectors_have_length_one_and_tell_topics_apart(server: Server) -> None:
    answer = server.post(PATH, {"input": TOPICS, "model": "smollm2"})
    found = np.array(vectors(answer))
    assert found.shape == (4, 576)
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    likeness = found @ found.T
    for one, other in ((0, 1), (1, 0), (2, 3), (3, 2)):
        assert likeness[one][other] == max(likeness[one][i] for i in range(4) if i != one)
    document = answer.json
    num_tokens = sum(server.post("/tokenize", {"content": text}).json["count"] for text in TOPICS)
    assert document["usage"] == {"prompt_tokens": num_tokens, "total_tokens": num_tokens}
    assert (document["object"], document["model"]) == ("list", "smollm2")


def test_a_vector_has_the_same_bits_alone_in_a_batch_and_under_load(server: Server) -> None:
    """Texts of 3 to 600 tokens, so that some are prefilled in chunks, which also depend on what else runs."""
    texts = ["word " * size + "end." for size in (0, 7, 30, 100, 600)]
    alone = [vectors(server.post(PATH, {"input": text}))[0] for text in texts]
    before, split = server.engine("steps_total"), server.engine("split_prompts_total")
    assert vectors(server.post(PATH, {"input": texts})) == alone
    with ThreadPoolExecutor(8) as pool:
        chats = [pool.submit(server.chat, max_tokens=40, ignore_eos=True) for _ in range(4)]
        again = [pool.submit(server.post, PATH, {"input": [text, *texts[:3]]}) for text in texts]
        assert [vectors(answer.result())[0] for answer in again] == alone
        assert all(chat.result().status == 200 for chat in chats)
    assert server.engine("split_prompts_total") > split, "no text was prefilled in chunks"
    assert server.engine("steps_total") > before
    assert server.engine("max_batch_seqs") >= 4


def test_token_ids_and_base64_say_the_same(server: Server) -> None:
    ids = server.post("/tokenize", {"content": TOPICS[0]}).json["tokens"]
    expected = vectors(server.post(PATH, {"input": TOPICS[0]}))
    assert vectors(server.post(PATH, {"input": ids})) == expected
    assert vectors(server.post(PATH, {"input": [ids, ids], "encoding_format": "float"})) == expected * 2
    data = base64.b64decode(vectors(server.post(PATH, {"input": TOPICS[0], "encoding_format": "base64"}))[0])
    assert [struct.unpack("<576f", data)] == [tuple(vector) for vector in expected]


def test_many_texts_come_back_in_order_and_let_others_through(server: Server) -> None:
    """More texts than run at once; a chat that comes after them does not wait for the last."""
    texts = [f"Number {i}." for i in range(150)]
    with ThreadPoolExecutor(2) as pool:
        many = pool.submit(server.post, PATH, {"input": texts})
        chat = server.chat(max_tokens=2)
        assert chat.status == 200
        assert not many.done(), "the chat waited for all texts"
        found = vectors(many.result())
    assert len(found) == 150
    assert found[37] == vectors(server.post(PATH, {"input": texts[37]}))[0]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "input"),
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": ["a", ""]}, "input[1]"),
        ({"input": [["a"]]}, "input[0][0]"),
        ({"input": [[1], []]}, "input[1]"),
        ({"input": [-1]}, "input"),
        ({"input": [10**9]}, "input"),
        ({"input": ["a"] * 2049}, "input"),
        ({"input": "a", "dimensions": 64}, "dimensions"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format"),
        ({"input": "a", "truncate": True}, "truncate"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_cannot_be_done_is_a_400_that_names_it(server: Server, body: dict[str, Any], param: str) -> None:
    answer = server.post(PATH, body)
    assert answer.status == 400, answer.body
    assert answer.error["param"] == param, answer.error


def test_a_text_that_is_too_long_is_refused_and_never_cut(server: Server) -> None:
    for size in (2100, 100_000):
        answer = server.post(PATH, {"input": ["short", "word " * size]})
        assert (answer.status, answer.error["code"]) == (400, "context_length_exceeded")
        assert "input[1]" in answer.error["message"]
    assert server.post(PATH, {"input": "a", "model": "none"}).status == 404


@pytest.mark.usefixtures("default_model")
def test_metrics_count_what_usage_says_and_a_client_that_leaves_frees_its_work() -> None:
    with serving("--context", "2048") as server:
        used = sum(server.post(PATH, {"input": TOPICS * size}).json["usage"]["prompt_tokens"] for size in (1, 3))
        assert server.metrics()["openherd_prompt_tokens_total"] == used
        with server.asking(PATH, {"input": ["word " * 500] * 200}):
            wait_until(lambda: server.engine("running") > 0)
        wait_until(lambda: server.engine("running") == 0)
        wait_until(lambda: server.metrics()["openherd_cancelled_requests_total"] == 1)
        assert server.engine("aborted_total") > 0, "the client left after the work was done"
        wait_until(lambda: is_empty(server))
        assert server.metrics()["openherd_prompt_tokens_total"] == used


def test_the_openai_client_embeds(server: Server) -> None:
    """It asks for base64 by itself where it may; its strict validation knows numbers only."""
    url = f"{server.url}/v1"
    client = openai.OpenAI(base_url=url, api_key="none", max_retries=0)
    strict = openai.OpenAI(base_url=url, api_key="none", max_retries=0, _strict_response_validation=True)
    answer = client.embeddings.create(model="smollm2", input=TOPICS)
    plain = strict.embeddings.create(model="smollm2", input=TOPICS, encoding_format="float")
    assert [entry.embedding for entry in answer.data] == [entry.embedding for entry in plain.data]
    with pytest.raises(openai.BadRequestError, match="dimensions"):
        client.embeddings.create(model="smollm2", input="a", dimensions=8)
