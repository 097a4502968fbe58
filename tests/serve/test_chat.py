"""POST /v1/chat/completions: what is answered, streamed or not (S7), and through the `openai` client."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

from tests.serve.client import PARIS, check_chat_grammar
from tests.serve.conftest import FULL, Server

PATH = "/v1/chat/completions"
NUM_STREAMS = 500 if FULL else 100
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 12}, "big": {"type": "boolean"}},
    "required": ["city", "big"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def client(server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, _strict_response_validation=True)


def test_an_answer_says_paris_and_counts_its_tokens(server: Server) -> None:
    answer = server.chat()
    document = answer.json
    assert answer.text == "The capital of France is Paris."
    assert document["choices"][0]["finish_reason"] == "stop"
    usage = document["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["completion_tokens"] == 8
    assert document["model"] == "smollm2"
    assert document["system_fingerprint"].startswith("openherd-")


def test_streams_keep_the_grammar_of_events(server: Server) -> None:
    """S7. Short and long, one choice and several, with and without usage and logprobs, 16 at a time."""

    def one(number: int) -> None:
        n, usage = 1 + number % 3, number % 2 == 0
        body = {
            "messages": [{"role": "user", "content": f"Count to {number}."}],
            "max_tokens": 1 + number % 7,
            "temperature": 1,
            "seed": number,
            "n": n,
            "logprobs": number % 5 == 0,
            "stream_options": {"include_usage": usage},
        }
        choices, counted = check_chat_grammar(server.events(PATH, body), n=n, usage=usage)
        if usage:
            assert counted["completion_tokens"] <= n * body["max_tokens"]
            assert all(choice.text for choice in choices) or counted["completion_tokens"]

    with ThreadPoolExecutor(16) as pool:
        assert len(list(pool.map(one, range(NUM_STREAMS)))) == NUM_STREAMS
    assert server.engine("max_batch_seqs") >= 8


def test_a_stream_says_what_the_whole_answer_says(server: Server) -> None:
    body = {"messages": PARIS, "temperature": 1, "seed": 3, "n": 3, "max_tokens": 20, "logprobs": True}
    whole = server.post(PATH, body).json["choices"]
    choices, _ = check_chat_grammar(server.events(PATH, body), n=3)
    assert [choice.text for choice in choices] == [choice["message"]["content"] for choice in whole]
    assert [choice.tokens for choice in choices] == [choice["logprobs"]["content"] for choice in whole]
    assert len({choice.text for choice in choices}) == 3, "the choices are drawn apart"


def test_logprobs_spell_the_text(server: Server) -> None:
    choice = server.chat(logprobs=True, top_logprobs=3).json["choices"][0]
    content = choice["logprobs"]["content"]
    assert b"".join(bytes(token["bytes"]) for token in content).decode() == choice["message"]["content"]
    assert "".join(token["token"] for token in content) == choice["message"]["content"]
    for token in content:
        assert len(token["top_logprobs"]) == 3
        assert token["top_logprobs"][0]["logprob"] == max(top["logprob"] for top in token["top_logprobs"])
        assert token["logprob"] <= 0


def test_content_parts_and_developer_messages_are_text(server: Server) -> None:
    parts = [
        {
            "role": "user",
            "content": [{"type": "text", "text": "What is the capital"}, {"type": "text", "text": " of France?"}],
        }
    ]
    assert server.chat(parts).text == server.chat().text
    by_developer = server.chat([{"role": "developer", "content": "Be brief."}, *PARIS], max_tokens=8)
    by_system = server.chat([{"role": "system", "content": "Be brief."}, *PARIS], max_tokens=8)
    assert by_developer.text == by_system.text


def test_a_schema_is_followed(server: Server) -> None:
    response_format = {"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA, "strict": True}}
    answer = server.chat(response_format=response_format, max_tokens=80)
    value = json.loads(answer.text)
    assert set(value) == {"city", "big"}
    # Of ten drawn objects most end by themselves; one that does not is cut where a longer one would go on.
    ended = 0
    for seed in range(10):
        params = {"temperature": 1, "seed": seed, "max_tokens": 150}
        answer = server.chat(response_format={"type": "json_object"}, **params)
        assert answer.text.lstrip().startswith("{")
        if answer.json["choices"][0]["finish_reason"] == "stop":
            assert isinstance(json.loads(answer.text), dict)
            ended += 1
    assert ended


@pytest.mark.parametrize(
    ("params", "param"),
    [
        ({"temperature": 1e9}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"n": 0}, "n"),
        ({"n": 10**6}, "n"),
        ({"max_tokens": 10**9}, "max_tokens"),
        ({"max_tokens": 5, "max_completion_tokens": 5}, "max_completion_tokens"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "logprobs"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"logit_bias": {"49152": 1}}, "logit_bias"),
        ({"stop": [""]}, "stop"),
        ({"stop_token_ids": [-1]}, "stop_token_ids"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"audio": {}}, "audio"),
        ({"temprature": 1}, "temprature"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "user", "content": "word " * 5000}]}, "messages"),
        ({"response_format": {"type": "yaml"}}, "response_format"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}},
            "response_format.json_schema.name",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"not": {}}}}},
            "response_format",
        ),
    ],
    ids=str,
)
def test_what_cannot_be_done_is_a_400_that_names_it(server: Server, params: dict[str, Any], param: str) -> None:
    for stream in (False, None) if "stream_options" in params else (False, True):
        answer = server.chat(**({"stream": stream} | params))
        assert answer.status == 400, answer.body
        assert answer.error["type"] == "invalid_request_error"
        assert answer.error["param"] == param


def test_unknown_models_paths_and_methods_have_the_shape_of_errors(server: Server) -> None:
    unknown = server.chat(model="gpt-9")
    assert (unknown.status, unknown.error["code"]) == (404, "model_not_found")
    assert "smollm2" in unknown.error["message"]
    assert server.get("/v1/nothing").error
    assert server.get("/v1/models/none").status == 404
    assert server.get("/v1/models/none").error
    refused = server.get(PATH)
    assert (refused.status, refused.headers.get("allow")) == (405, "POST")
    assert refused.error
    form = server.send("POST", PATH, b"{}", headers={"Content-Type": "text/plain"})
    assert (form.status, form.error["type"]) == (415, "invalid_request_error")


def test_the_openai_client_talks(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["smollm2"]
    assert client.models.retrieve("smollm2").owned_by == "openherd"
    answer = client.chat.completions.create(model="smollm2", messages=PARIS, temperature=0, logprobs=True)
    assert answer.choices[0].message.content == "The capital of France is Paris."
    text = client.completions.create(model="smollm2", prompt="1, 2, 3,", max_tokens=4, temperature=0, logprobs=2)
    assert text.choices[0].text.startswith(" 4")
    with pytest.raises(openai.NotFoundError, match="gpt-9"):
        client.chat.completions.create(model="gpt-9", messages=PARIS)
    with pytest.raises(openai.BadRequestError, match="top_p") as refused:
        client.chat.completions.create(model="smollm2", messages=PARIS, top_p=2)
    assert refused.value.param == "top_p"


def test_the_openai_client_streams(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="smollm2", messages=PARIS, temperature=0, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "The capital of France is Paris."
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 8


def test_the_openai_client_leaves_early_and_parses_schemas(client: openai.OpenAI) -> None:
    with client.chat.completions.create(
        model="smollm2", messages=PARIS, stream=True, extra_body={"ignore_eos": True}
    ) as stream:
        assert next(iter(stream)).choices
    answer = client.chat.completions.create(
        model="smollm2",
        messages=PARIS,
        max_tokens=80,
        temperature=0,
        response_format={"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA, "strict": True}},
    )
    assert set(json.loads(answer.choices[0].message.content or "")) == {"city", "big"}
