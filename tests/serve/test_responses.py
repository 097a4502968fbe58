"""POST /v1/responses: what is answered, the grammar of its events, and through the `openai` client."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest

from tests.serve.client import PARIS, named_events
from tests.serve.conftest import Server
from tests.serve.test_chat import SCHEMA

PATH = "/v1/responses"
QUESTION = "What is the capital of France?"
BASE: dict[str, Any] = {"model": "smollm2", "input": QUESTION, "temperature": 0}
WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "Current weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": True,
}
OF_THE_MOMENT = ("id", "created_at", "completed_at", "seed", "usage")


@pytest.fixture(scope="module")
def client(server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, _strict_response_validation=True)


def texts(document: dict[str, Any]) -> list[str]:
    return [part["text"] for item in document["output"] if item["type"] == "message" for part in item["content"]]


def streamed(server: Server, body: dict[str, Any]) -> dict[str, Any]:
    """The response that a stream ends with. Asserts the grammar of its events on the way."""
    events = named_events(server, PATH, body)
    kinds = [event["type"] for event in events]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    last = events[-1]["response"]
    assert kinds[-1] == f"response.{last['status']}"
    assert events[0]["response"]["status"] == "in_progress"
    assert events[0]["response"]["output"] == []
    grown: dict[int, str] = {}
    done: dict[int, Any] = {}
    for event in events[2:-1]:
        index = event["output_index"]
        assert index not in done, "an event of an item that is done"
        match event["type"].removeprefix("response."):
            case "output_item.added":
                assert index == len(grown) == len(done), "an item began before the last was done"
                grown[index] = ""
            case "output_text.delta" | "function_call_arguments.delta" | "reasoning_text.delta":
                assert event["item_id"] == last["output"][index]["id"]
                grown[index] += event["delta"]
            case "output_text.done" | "reasoning_text.done":
                assert event["text"] == grown[index]
            case "function_call_arguments.done":
                assert event["arguments"] == grown[index]
            case "output_item.done":
                done[index] = event["item"]
    assert [done[index] for index in sorted(done)] == last["output"]
    return last


def without_the_moment(value: Any) -> Any:
    if isinstance(value, list):
        return [without_the_moment(entry) for entry in value]
    if isinstance(value, dict):
        return {k: without_the_moment(v) for k, v in value.items() if k not in (*OF_THE_MOMENT, "call_id")}
    return value


def test_an_answer_says_paris_and_what_holds_for_it(server: Server) -> None:
    document = server.post(PATH, {**BASE, "metadata": {"a": "b"}, "instructions": "Be brief."}).json
    assert (document["object"], document["status"], document["store"]) == ("response", "completed", False)
    assert document["metadata"] == {"a": "b"}
    assert document["instructions"] == "Be brief."
    assert document["usage"]["total_tokens"] == document["usage"]["input_tokens"] + document["usage"]["output_tokens"]
    plain = server.post(PATH, BASE).json
    assert texts(plain) == ["The capital of France is Paris."]
    assert plain["usage"]["output_tokens"] == server.chat().json["usage"]["completion_tokens"]
    cut = server.post(PATH, {**BASE, "max_output_tokens": 3}).json
    assert (cut["status"], cut["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert cut["output"][0]["status"] == "incomplete"


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"max_output_tokens": 3},
        {"temperature": 1, "seed": 5, "max_output_tokens": 30},
        {"include": ["message.output_text.logprobs"], "top_logprobs": 2},
        {"text": {"format": {"type": "json_schema", "name": "city", "schema": SCHEMA}}, "max_output_tokens": 80},
        {"logit_bias": {"2": 100}},
        {"tools": [WEATHER], "tool_choice": "required", "parallel_tool_calls": False},
        {"tools": [WEATHER], "tool_choice": "required", "max_output_tokens": 60},
    ],
    ids=lambda change: ",".join(change) or "plain",
)
def test_a_stream_says_what_the_whole_answer_says(server: Server, change: dict[str, Any]) -> None:
    whole = server.post(PATH, {**BASE, **change})
    assert whole.status == 200, whole.body
    assert without_the_moment(streamed(server, {**BASE, **change})) == without_the_moment(whole.json)


def test_input_items_are_the_conversation_that_chat_has(server: Server) -> None:
    turns = [*PARIS, {"role": "assistant", "content": "It is Paris."}, {"role": "user", "content": "And of Spain?"}]
    items = [
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Be brief."}]},
        turns[0],
        {
            "type": "message",
            "id": "msg_1",
            "status": "completed",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "It is Paris.", "annotations": [], "logprobs": []}],
        },
        {"role": "user", "content": "And of Spain?"},
    ]
    chat = server.chat([{"role": "system", "content": "Be brief."}, *turns], max_tokens=12)
    assert texts(server.post(PATH, {**BASE, "input": items, "max_output_tokens": 12}).json) == [chat.text]
    instructed = {**BASE, "input": items[1:], "instructions": "Be brief.", "max_output_tokens": 12}
    assert texts(server.post(PATH, instructed).json) == [chat.text]


def test_a_call_and_what_it_gave_go_back_as_items(server: Server, client: openai.OpenAI) -> None:
    chosen = {"type": "function", "name": "get_weather"}
    first = client.responses.create(**BASE, tools=[WEATHER], tool_choice=chosen, parallel_tool_calls=False)
    (call,) = [item for item in first.output if item.type == "function_call"]
    assert set(json.loads(call.arguments)) == {"city"}
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "18 degrees, rain"}
    second = client.responses.create(
        model="smollm2", input=[{"role": "user", "content": QUESTION}, *first.output, output], max_output_tokens=20
    )
    assert second.output_text
    items = [{"role": "user", "content": "hi"}, output]
    refused = server.post(PATH, {**BASE, "input": items})
    assert (refused.status, refused.error["param"]) == (400, "input[1].call_id")


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"model": None}, "model"),
        ({"input": []}, "input"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0]"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}, "input[0].content[0]"),
        ({"input": "word " * 5000}, "input"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"max_output_tokens": 10**6}, "max_output_tokens"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"max_tokens": 5}, "max_tokens"),
        ({"store": True}, "store"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "name": "other"}, "tools": [WEATHER]}, "tool_choice"),
        ({"text": {"format": {"type": "json_schema", "name": "a", "schema": {"not": {}}}}}, "text.format"),
        ({"text": {"format": {"type": "json_schema", "schema": {}}}}, "text.format.name"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_what_cannot_be_done_is_a_400_that_names_it(server: Server, change: dict[str, Any], param: str) -> None:
    for stream in (False, True):
        answer = server.post(PATH, {**BASE, **change, "stream": stream})
        assert answer.status == 400, answer.body
        assert answer.error["param"] == param, answer.error


def test_the_openai_client_talks_streams_and_parses(client: openai.OpenAI) -> None:
    answer = client.responses.create(**BASE, top_logprobs=2, include=["message.output_text.logprobs"])
    assert answer.output_text == "The capital of France is Paris."
    (part,) = answer.output[0].content
    assert b"".join(bytes(token.bytes) for token in part.logprobs).decode() == answer.output_text
    with client.responses.stream(**BASE) as stream:
        pieces = [event.delta for event in stream if event.type == "response.output_text.delta"]
        assert "".join(pieces) == stream.get_final_response().output_text == answer.output_text
    assert len(pieces) > 3
    schema = {"type": "json_schema", "name": "city", "schema": SCHEMA, "strict": True}
    text = client.responses.create(**BASE, text={"format": schema}, max_output_tokens=80).output_text
    assert set(json.loads(text)) == {"city", "big"}
    with pytest.raises(openai.BadRequestError, match="previous_response_id"):
        client.responses.create(**BASE, previous_response_id="resp_1")
    with client.responses.create(**BASE, stream=True, extra_body={"ignore_eos": True}) as events:
        assert next(iter(events)).type == "response.created"
