"""Tools over HTTP: calls whole and streamed, through the `openai` client, and every way to ask wrongly."""

from __future__ import annotations

import json
import random
from typing import Any

import jsonschema
import openai
import pytest

from tests.serve.conftest import FULL, SLACK, Server
from tests.unit.constrain.random_schema import bounded_schema

PATH = "/v1/chat/completions"
ASKED = [{"role": "user", "content": "What is the weather in Paris?"}]
WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 12}, "unit": {"enum": ["C", "F"]}},
    "required": ["city", "unit"],
}
TOOLS = [
    {"type": "function", "function": {"name": "weather", "description": "The weather", "parameters": WEATHER}},
    {"type": "function", "function": {"name": "now"}},
]
CALLED = {
    "role": "assistant",
    "tool_calls": [{"id": "c", "type": "function", "function": {"name": "now", "arguments": "{}"}}],
}


@pytest.fixture(scope="module")
def client(server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, _strict_response_validation=True)


def tool(name: str, **function: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **function}}


def streamed(server: Server, body: dict[str, Any]) -> tuple[str, list[dict[str, str]], str, list[Any]]:
    """Content, calls, finish_reason and tokens of a stream of one choice, whose deltas have OpenAI's form."""
    content, calls, reason, tokens = "", [], "", []
    for event in server.events(PATH, body):
        if event == "[DONE]" or not event["choices"]:
            continue
        (choice,) = event["choices"]
        content += choice["delta"].get("content") or ""
        tokens += (choice["logprobs"] or {}).get("content", [])
        reason = choice["finish_reason"] or reason
        for piece in choice["delta"].get("tool_calls", ()):
            if "id" in piece:
                assert piece["index"] == len(calls)
                assert piece["type"] == "function"
                calls.append({"name": piece["function"]["name"], "arguments": ""})
            calls[piece["index"]]["arguments"] += piece["function"]["arguments"]
    return content, calls, reason, tokens


def test_the_client_gets_calls_and_gives_results_back(client: openai.OpenAI) -> None:
    messages: list[Any] = list(ASKED)
    asked: dict[str, Any] = {"model": "smollm2", "temperature": 0, "tools": TOOLS}
    named = {"type": "function", "function": {"name": "weather"}}
    first = client.chat.completions.create(
        messages=messages, tool_choice=named, parallel_tool_calls=False, max_tokens=100, **asked
    ).choices[0]
    assert first.finish_reason == "tool_calls"
    assert first.message.content is None
    (call,) = first.message.tool_calls or ()
    jsonschema.validate(json.loads(call.function.arguments), WEATHER)
    messages += [first.message, {"role": "tool", "tool_call_id": call.id, "content": "18 degrees"}]
    second = client.chat.completions.create(messages=messages, max_tokens=40, **asked).choices[0]
    assert second.message.content or second.message.tool_calls
    with client.chat.completions.stream(
        messages=list(ASKED), tool_choice=named, parallel_tool_calls=False, max_tokens=100, **asked
    ) as stream:
        final = stream.get_final_completion().choices[0]
    assert (final.message.tool_calls or ())[0].function.arguments == call.function.arguments


def test_a_stream_makes_the_calls_of_the_whole_answer(server: Server) -> None:
    num_calls = 0
    for seed in range(40 if FULL else 6):
        rng = random.Random(seed)
        schema = {"type": "object", "properties": {"x": bounded_schema(rng, 2)}, "required": ["x"]}
        body = {
            "messages": ASKED, "tools": [*TOOLS, tool("f", parameters=schema)], "temperature": 1, "seed": seed,
            "tool_choice": rng.choice(["required", "auto"]), "max_tokens": 120, "logprobs": True,
        }  # fmt: skip
        choice = server.post(PATH, body).json["choices"][0]
        message = choice["message"]
        calls = [call["function"] for call in message.get("tool_calls", ())]
        assert streamed(server, body) == (
            message["content"] or "", calls, choice["finish_reason"], choice["logprobs"]["content"],
        )  # fmt: skip
        num_calls += len(calls)
        schemas = {"weather": WEATHER, "now": {}, "f": schema}
        for call in calls if choice["finish_reason"] == "tool_calls" else ():
            jsonschema.validate(json.loads(call["arguments"]), schemas[call["name"]])
    assert num_calls


def test_ids_differ(server: Server) -> None:
    body = {"messages": ASKED, "tools": TOOLS, "tool_choice": "required", "seed": 1, "n": 4, "max_tokens": 100}
    choices = server.post(PATH, body).json["choices"]
    ids = [call["id"] for choice in choices for call in choice["message"].get("tool_calls", ())]
    assert len(ids) == len(set(ids)) >= 4


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"x": schema}}
    return schema


HOSTILE = [
    ({"tools": [tool("a b")]}, "tools[0].function.name"),
    ({"tools": [tool("a" * 65)]}, "tools[0].function.name"),
    ({"tools": [tool("a\n")]}, "tools[0].function.name"),
    ({"tools": [tool("\u00e9")]}, "tools[0].function.name"),
    ({"tools": [{"type": "custom", "custom": {"name": "a"}}]}, "tools[0].type"),
    ({"tools": [tool("a"), tool("a")]}, "tools"),
    ({"tools": [tool(f"t{i}") for i in range(129)]}, "tools"),
    ({"tools": [tool("a", parameters=nested(40))]}, "tools[0]"),
    ({"tools": [tool("a", parameters={"type": "array"})]}, "tools[0].function.parameters"),
    ({"tools": [tool("a", parameters={"not": {}})], "tool_choice": "required"}, "tools[0].function.parameters"),
    ({"tools": [tool("a", parameters={"$ref": "#"}, strict=True)]}, "tools[0].function.parameters"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tools": TOOLS, "tool_choice": "sometimes"}, "tool_choice"),
    ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "then"}}}, "tool_choice"),
    ({"messages": [*ASKED, {"role": "tool", "content": "x"}]}, "messages[1].tool_call_id"),
    ({"messages": [*ASKED, {"role": "tool", "content": "x", "tool_call_id": "c"}]}, "messages[1].tool_call_id"),
    ({"messages": [CALLED, {"role": "user", "content": "x", "tool_call_id": "c"}]}, "messages[1].tool_call_id"),
    ({"messages": [{**CALLED, "role": "user"}]}, "messages[0].tool_calls"),
    ({"messages": [{"role": "user", "content": "x", "reasoning_content": "x"}]}, "messages[0].reasoning_content"),
    ({"messages": [{"role": "assistant"}]}, "messages[0].content"),
    *(
        (
            {"messages": [{"role": "assistant", "tool_calls": [{**CALLED["tool_calls"][0], "function": called}]}]},
            "messages[0].tool_calls[0].function.arguments",
        )
        for called in (
            {"name": "now", "arguments": "{"},
            {"name": "now", "arguments": "[1]"},
            {"name": "now", "arguments": '{"x": NaN}'},
            {"name": "now", "arguments": "[" * 40_000},
        )
    ),
]  # fmt: skip


@pytest.mark.parametrize(("params", "param"), HOSTILE, ids=range(len(HOSTILE)))
def test_what_is_wrong_is_a_400_that_names_it(server: Server, params: dict[str, Any], param: str) -> None:
    answer = server.post(PATH, {"messages": ASKED, "max_tokens": 4, **params})
    assert answer.status == 400, answer.body
    assert answer.error["param"] == param, answer.error
    assert answer.seconds < 2 * SLACK


BOMBS = [
    {"type": "object", "properties": {"x": {"type": "string", "pattern": "(a+)+b" * 50}}},
    {"type": "object", "properties": {f"p{i}": {"type": "string", "pattern": "a{1000}"} for i in range(100)}},
    {"type": "object", "properties": {"x": {"type": "string", "pattern": "(((a{50}){50}){50}){50}"}}},
    {"type": "object", "properties": {f"p{i}": {"enum": list(range(200))} for i in range(20)}},
    {"type": "object", "properties": {"x": {"type": "array", "minItems": 10**9, "items": {}}}},
    {"type": "object", "properties": {"x": {"type": "integer", "multipleOf": 999_983}}},
]


@pytest.mark.parametrize("choice", ["auto", "required"])
def test_bombs_in_schemas_cost_little(server: Server, choice: str) -> None:
    """X8: one bomb in each of many tools. What cannot be compiled is refused where it must be, loosened where not."""
    for bomb in BOMBS:
        tools = [tool(f"t{i}", parameters=bomb) for i in range(8)]
        body = {"messages": [{"role": "user", "content": "x"}], "tools": tools, "tool_choice": choice, "max_tokens": 2}
        answer = server.post(PATH, body)
        assert answer.status in (200, 400), answer.body
        assert answer.status == 200 or answer.error["param"] in ("messages", "tools", "tools[0].function.parameters")
        assert answer.seconds < 2 * SLACK
    assert server.get("/health").status == 200


def test_the_models_list_says_how_tools_are_offered(server: Server) -> None:
    (model,) = server.get("/v1/models").json["data"]
    assert model["tool_calls"] == "hermes, in a system message"
    assert model["thinks"] is False


def test_the_template_shows_the_tools(server: Server) -> None:
    prompt = server.post("/apply-template", {"messages": ASKED, "tools": TOOLS}).json["prompt"]
    assert '"name": "weather"' in prompt
    assert "<tool_call>" in prompt
