"""What the writers of both newer APIs make of a worker's events: thoughts, text and calls in turn, without a model."""

from __future__ import annotations

import json
from typing import Any

from openai.types.responses import Response

from openherd.serve.api.answers import AnswerFormat, Choice, Head, Usage
from openherd.serve.api.message_writer import MessageFormat
from openherd.serve.api.messages import MessagesRequest
from openherd.serve.api.response_writer import ResponseFormat
from openherd.serve.api.responses import ResponsesRequest
from openherd.serve.front.errors import ApiError

HEAD = Head("abc", 1, "smollm2", "openherd-test")
USAGE = Usage(prompt_tokens=20, completion_tokens=12, cached_tokens=16)


def delta(text: str = "", **more: Any) -> dict[str, Any]:
    return {"type": "delta", "choice": 0, "text": text, "tokens": None, **more}


def call(index: int, arguments: str, **opening: str) -> dict[str, Any]:
    return delta(tool_calls=[{"index": index, **opening, "arguments": arguments}])


DELTAS = [
    delta(reasoning="Let me "),
    delta(reasoning="see."),
    delta("I will "),
    delta("look."),
    call(0, '{"city":', id="call_1", name="weather"),
    call(0, '"Rome"}'),
    call(1, "{}", id="call_2", name="now"),
    delta(" Done."),
]
END = {"type": "end", "choice": 0, "finish_reason": "tool_calls", "stop": None}


def responses() -> ResponseFormat:
    return ResponseFormat(ResponsesRequest(model="smollm2", input="hi"))


def messages(thinking: bool) -> MessageFormat:
    asked: dict[str, Any] = {"model": "m", "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}]}
    if thinking:
        asked["thinking"] = {"type": "adaptive"}
    return MessageFormat(MessagesRequest.model_validate(asked))


def events(answer: AnswerFormat, *, cut: bool = False) -> list[dict[str, Any]]:
    data = answer.opening(HEAD, USAGE) + b"".join(answer.delta(HEAD, event) for event in DELTAS)
    data += answer.failure(HEAD, ApiError(503, "it died")) if cut else answer.ending(HEAD, END)
    data += b"" if cut else answer.closing(HEAD, USAGE)
    return [json.loads(block.partition(b"\ndata: ")[2]) for block in data.strip().split(b"\n\n")]


def whole(answer: AnswerFormat) -> dict[str, Any]:
    choice = Choice()
    for event in DELTAS:
        choice.add(event)
    choice.end(END)
    return answer.document(HEAD, [choice], USAGE, 7)


def test_a_response_has_an_item_for_each_stretch_whole_and_streamed() -> None:
    document = whole(responses())
    Response.model_validate(document, strict=True)
    assert [item["type"] for item in document["output"]] == [
        "reasoning", "message", "function_call", "function_call", "message",
    ]  # fmt: skip
    assert document["output"][0]["content"] == [{"type": "reasoning_text", "text": "Let me see."}]
    assert document["output"][2]["arguments"] == '{"city":"Rome"}'
    seen = events(responses())
    assert [event["sequence_number"] for event in seen] == list(range(len(seen)))
    last = seen[-1]["response"]
    assert (seen[-1]["type"], last["output"]) == ("response.completed", document["output"])
    done = [event["item"] for event in seen if event["type"] == "response.output_item.done"]
    assert done == document["output"]
    kinds = {event["type"] for event in seen}
    assert {"response.reasoning_text.delta", "response.function_call_arguments.done"} <= kinds


def test_items_of_one_step_open_and_close_in_turn() -> None:
    """Speculation brings the end of thoughts, text and several calls at once; each item is whole before the next."""
    answer = responses()
    first = delta(" think", reasoning="I ")  # text right behind a thought
    both = [("call_1", '{"a":1}'), ("call_2", "{}")]
    calls = [{"index": i, "id": id, "name": "f", "arguments": text} for i, (id, text) in enumerate(both)]
    data = (
        answer.delta(HEAD, delta(reasoning="so "))
        + answer.delta(HEAD, first)
        + answer.delta(HEAD, delta("!", tool_calls=calls))
    )
    data += answer.ending(HEAD, END)
    seen = [json.loads(block.partition(b"\ndata: ")[2]) for block in data.strip().split(b"\n\n")]
    steps = [(event["type"].rpartition("response.")[2], event["output_index"]) for event in seen]
    assert [step for step in steps if step[0].startswith("output_item")] == [
        (f"output_item.{what}", index) for index in range(4) for what in ("added", "done")
    ]
    assert [index for _, index in steps] == sorted(index for _, index in steps)
    done = [event["item"] for event in seen if event["type"] == "response.output_item.done"]
    assert [item["type"] for item in done] == ["reasoning", "message", "function_call", "function_call"]
    assert done[0]["content"][0]["text"] == "so I "
    assert done[1]["content"][0]["text"] == " think!"
    assert [item["arguments"] for item in done[2:]] == ['{"a":1}', "{}"]
    assert len({event["item_id"] for event in seen if "item_id" in event}) == 4


def test_a_response_that_fails_on_the_way_says_how_far_it_came() -> None:
    last = events(responses(), cut=True)[-1]
    assert last["type"] == "response.failed"
    assert last["response"]["status"] == "failed"
    assert last["response"]["error"] == {"code": "server_error", "message": "it died"}
    assert len(last["response"]["output"]) == 5
    Response.model_validate(last["response"], strict=True)


def test_a_message_has_a_block_for_each_stretch_and_thinking_where_it_is_asked() -> None:
    for thinking in (False, True):
        document = whole(messages(thinking))
        kinds = [block["type"] for block in document["content"]]
        assert kinds == ["thinking"] * thinking + ["text", "tool_use", "tool_use", "text"]
        assert document["stop_reason"] == "tool_use"
        assert (document["usage"]["input_tokens"], document["usage"]["cache_read_input_tokens"]) == (4, 16)
        seen = events(messages(thinking))
        blocks: list[dict[str, Any]] = []
        pieces: list[str] = []
        for event in seen:
            match event["type"]:
                case "content_block_start":
                    assert event["index"] == len(blocks)
                    blocks.append(event["content_block"])
                    pieces = []
                case "content_block_delta":
                    pieces.append(next(value for key, value in event["delta"].items() if key != "type"))
                case "content_block_stop":
                    key = {"text": "text", "thinking": "thinking", "tool_use": "input"}[blocks[-1]["type"]]
                    blocks[-1][key] = json.loads("".join(pieces)) if key == "input" else "".join(pieces)
        assert blocks == document["content"]
        assert seen[-1]["type"] == "message_stop"


def test_a_message_that_fails_on_the_way_ends_with_anthropics_error() -> None:
    last = events(messages(thinking=False), cut=True)[-1]
    assert last == {"type": "error", "error": {"type": "overloaded_error", "message": "it died"}}
