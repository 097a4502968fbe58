"""POST /v1/messages: what is answered, the grammar of its events, errors in Anthropic's shape, and its client."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import pytest

from tests.serve.client import JSON, PARIS, Answer, named_events
from tests.serve.conftest import Server, serving
from tests.serve.test_overload import wait_until

PATH = "/v1/messages"
BASE: dict[str, Any] = {"model": "smollm2", "max_tokens": 60, "messages": PARIS, "temperature": 0}
# The client of Anthropic's newest models has no arguments for the sampling of older ones.
ASKED = {**{k: v for k, v in BASE.items() if k != "temperature"}, "extra_body": {"temperature": 0}}
WEATHER = {
    "name": "get_weather",
    "description": "Current weather of a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}

ONE = {"disable_parallel_tool_use": True}  # the default model, asked for several, calls to the end of its tokens


@pytest.fixture(scope="module")
def client(server: Server) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0)


def error(answer: Answer) -> dict[str, str]:
    """The body of an error, which must have Anthropic's shape and nothing else."""
    document = answer.json
    assert set(document) == {"type", "error"}, document
    assert document["type"] == "error"
    assert set(document["error"]) == {"type", "message"}
    return document["error"]


def streamed(server: Server, body: dict[str, Any]) -> dict[str, Any]:
    """The message that a stream makes. Asserts the grammar of its events on the way."""
    events = named_events(server, PATH, body)
    assert events[0]["type"] == "message_start"
    assert [event["type"] for event in events[-2:]] == ["message_delta", "message_stop"]
    message = events[0]["message"]
    assert (message["content"], message["stop_reason"], message["usage"]["output_tokens"]) == ([], None, 0)
    is_open, arguments = False, ""
    for event in events[1:-2]:
        match event["type"]:
            case "content_block_start":
                assert not is_open
                assert event["index"] == len(message["content"])
                message["content"].append(event["content_block"])
                is_open, arguments = True, ""
            case "content_block_delta":
                assert is_open
                block, delta = message["content"][-1], event["delta"]
                if delta["type"] == "input_json_delta":
                    arguments += delta["partial_json"]
                else:
                    block["text"] += delta["text"]
            case "content_block_stop":
                assert is_open
                is_open = False
                if arguments:
                    message["content"][-1]["input"] = json.loads(arguments)
    assert not is_open
    return message | events[-2]["delta"] | {"usage": events[-2]["usage"]}


def without_the_moment(message: dict[str, Any]) -> dict[str, Any]:
    content = [{k: v for k, v in block.items() if k != "id"} for block in message["content"]]
    kept = ("role", "type", "model", "stop_reason", "stop_sequence")
    return {**{key: message[key] for key in kept}, "content": content, "out": message["usage"]["output_tokens"]}


def test_an_answer_says_paris_and_counts_its_tokens(server: Server) -> None:
    document = server.post(PATH, BASE).json
    assert document["content"] == [{"type": "text", "text": "The capital of France is Paris.", "citations": None}]
    assert (document["type"], document["role"], document["stop_reason"]) == ("message", "assistant", "end_turn")
    usage = document["usage"]
    counted = server.post(f"{PATH}/count_tokens", {"model": "smollm2", "messages": PARIS}).json
    assert counted == {"input_tokens": usage["input_tokens"] + usage["cache_read_input_tokens"]}
    assert usage["output_tokens"] == 8
    tools = server.post(f"{PATH}/count_tokens", {"model": "smollm2", "messages": PARIS, "tools": [WEATHER]})
    assert tools.status == 200, tools.body


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, "end_turn"),
        ({"max_tokens": 3}, "max_tokens"),
        ({"stop_sequences": ["xyz", " France"]}, "stop_sequence"),
        ({"temperature": 1, "seed": 4, "top_k": 50, "system": "Be brief."}, None),
        ({"tools": [WEATHER], "tool_choice": {"type": "any", **ONE}}, "tool_use"),
        ({"tools": [WEATHER], "tool_choice": {"type": "tool", "name": "get_weather", **ONE}}, "tool_use"),
        ({"tools": [WEATHER], "tool_choice": {"type": "any"}}, None),
    ],
    ids=str,
)
def test_a_stream_says_what_the_whole_answer_says(server: Server, change: dict[str, Any], reason: str | None) -> None:
    whole = server.post(PATH, {**BASE, **change})
    assert whole.status == 200, whole.body
    assert without_the_moment(streamed(server, {**BASE, **change})) == without_the_moment(whole.json)
    assert reason in (None, whole.json["stop_reason"])
    if reason == "stop_sequence":
        assert whole.json["stop_sequence"] == " France"
        assert whole.json["content"][0]["text"] == "The capital of"


def test_blocks_and_system_are_the_conversation_that_chat_has(server: Server) -> None:
    blocks = [{"type": "text", "text": PARIS[0]["content"], "cache_control": {"type": "ephemeral"}}]
    system = [{"type": "text", "text": "Be brief."}]
    answer = server.post(PATH, {**BASE, "system": system, "messages": [{"role": "user", "content": blocks}]})
    chat = server.chat([{"role": "system", "content": "Be brief."}, *PARIS], max_tokens=60)
    assert answer.json["content"][0]["text"] == chat.text
    assert server.post(PATH, {**BASE, "system": "Be brief."}).json["content"] == answer.json["content"]


def test_a_tool_is_used_and_its_result_goes_back(client: anthropic.Anthropic) -> None:
    used = client.messages.create(**{**ASKED, "max_tokens": 100}, tools=[WEATHER], tool_choice={"type": "any", **ONE})
    (use,) = [block for block in used.content if block.type == "tool_use"]
    assert set(use.input) == {"city"}
    result = {"type": "tool_result", "tool_use_id": use.id, "content": [{"type": "text", "text": "rain"}]}
    turns = [*PARIS, used.to_param(), {"role": "user", "content": [result, {"type": "text", "text": "And now?"}]}]
    assert client.messages.create(**{**ASKED, "messages": turns}, tools=[WEATHER]).content


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": 10**6}, "max_tokens"),
        ({"model": None}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": [*PARIS, {"role": "assistant", "content": "The"}]}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "messages[0].content[0]"),
        (
            {"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "x"}]}]},
            "messages[0].content[0].tool_use_id",
        ),
        ({"messages": [{"role": "user", "content": "word " * 5000}]}, "context"),
        ({"stop_sequences": [""]}, "stop_sequences"),
        ({"temperature": 200}, "temperature"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"tool_choice": {"type": "tool"}, "tools": [WEATHER]}, "tool_choice.name"),
        ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, "thinking"),
        ({"container": "x"}, "container"),
        ({"mcp_servers": []}, "mcp_servers"),
        ({"metadta": {}}, "metadta"),
        ({"output_config": {"format": {"type": "json_schema", "schema": {"not": {}}}}}, "output_config.format"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_what_cannot_be_done_is_a_400_that_names_it(server: Server, change: dict[str, Any], named: str) -> None:
    for stream in (False, True):
        answer = server.post(PATH, {**BASE, **change, "stream": stream})
        assert answer.status == 400, answer.body
        assert error(answer)["type"] == "invalid_request_error"
        assert named in error(answer)["message"]


def test_every_error_under_the_path_has_the_shape(server: Server) -> None:
    assert error(server.post(PATH, {**BASE, "model": "claude"}))["type"] == "not_found_error"
    assert error(server.post(f"{PATH}/batches", {}))["type"] == "not_found_error"
    assert error(server.get(PATH))["type"] == "invalid_request_error"
    assert error(server.send("POST", PATH, b"{}", headers={"Content-Type": "text/plain"}))["type"]
    large = server.send("POST", PATH, b" " * (3 * 2**20), headers=JSON)
    assert (large.status, error(large)["type"]) == (413, "request_too_large")


@pytest.mark.usefixtures("default_model")
def test_the_limits_speak_anthropics_language(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """401, 429, the typed errors of the client; the metrics are the usage, and a client that leaves frees its work."""
    key = "herd-a-key-of-a-test"
    monkeypatch.setenv("OPENHERD_API_KEYS", key)
    with serving("--context", "2048", "--max-seqs", "1", "--queue", "0") as server:
        client = anthropic.Anthropic(base_url=server.url, api_key=key, max_retries=0)
        with pytest.raises(anthropic.AuthenticationError):
            anthropic.Anthropic(base_url=server.url, api_key="other", max_retries=0).messages.create(**ASKED)
        unknown = server.post(PATH, BASE)
        assert (unknown.status, error(unknown)["type"]) == (401, "authentication_error")
        usage = client.messages.create(**ASKED).usage
        metrics = {"Authorization": f"Bearer {key}"}

        def sample(name: str) -> float:
            lines = server.get("/metrics", headers=metrics).body.decode().splitlines()
            return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))

        assert sample("openherd_completion_tokens_total") == usage.output_tokens
        assert sample("openherd_prompt_tokens_total") == usage.input_tokens + (usage.cache_read_input_tokens or 0)
        long = {**ASKED, "max_tokens": 1900, "extra_body": {"ignore_eos": True}}
        with client.messages.create(**long, stream=True) as stream:
            assert next(iter(stream)).type == "message_start"
            with pytest.raises(anthropic.RateLimitError) as full:
                client.messages.create(**ASKED)
            assert full.value.response.headers["retry-after"]
        wait_until(lambda: sample("openherd_cancelled_requests_total") == 1)
        wait_until(lambda: sample("openherd_requests ") == 0)


def test_the_anthropic_client_talks_and_streams(client: anthropic.Anthropic) -> None:
    answer = client.messages.create(**ASKED)
    assert answer.content[0].text == "The capital of France is Paris."
    with client.messages.stream(**ASKED) as stream:
        assert "".join(stream.text_stream) == answer.content[0].text
        final = stream.get_final_message()
    assert (final.stop_reason, final.usage.output_tokens) == ("end_turn", answer.usage.output_tokens)
    assert client.messages.count_tokens(model="smollm2", messages=PARIS).input_tokens > 10
    with pytest.raises(anthropic.NotFoundError, match="claude"):
        client.messages.create(**{**ASKED, "model": "claude"})
    with pytest.raises(anthropic.BadRequestError, match="top_p"):
        client.messages.create(**{**ASKED, "extra_body": {"top_p": 2}})
