"""Answers of the Responses API: the document, and the events that it grows by.

A response is a list of output items: reasoning, messages, function calls. In a stream each item opens, grows and is
done before the next one opens, and `sequence_number` counts the events from 0.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from openherd.serve.api.answers import Choice, Document, Growth, Head, Part, Usage
from openherd.serve.api.events import sse
from openherd.serve.api.responses import NAMES, ResponsesRequest
from openherd.serve.front.errors import ApiError
from openherd.serve.wire import Event, Frame

_PREFIXES = {"reasoning": "rs", "text": "msg", "call": "fc"}


class ResponseFormat:
    """Documents of type response, and events of types response.*"""

    names = NAMES

    def __init__(self, request: ResponsesRequest) -> None:
        self._request = request
        self._params = request.params()
        self.frame: Frame = request.frame(asdict(self._params))
        self.num_choices = 1
        self._choice = Choice()  # of a stream
        self._num_events = 0

    def opening(self, head: Head, usage: Usage) -> bytes:
        response = self._resource(head, "in_progress", [])
        return self._event("response.created", response=response) + self._event(
            "response.in_progress", response=response
        )

    def delta(self, head: Head, event: Event) -> bytes:
        data = b""
        for growth in self._choice.add(event):  # all of the delta's parts are there by now
            index = next(i for i, part in enumerate(self._choice.parts) if part is growth.part)
            if growth.is_new:
                data += self._done(head, index - 1, "completed") + self._added(head, index)
            data += self._grown(head, index, growth)
        return data

    def ending(self, head: Head, event: Event) -> bytes:
        self._choice.end(event)
        data = b""
        if not self._choice.parts:
            self._choice.parts.append(Part("text"))
            data = self._added(head, 0)
        return data + self._done(head, len(self._choice.parts) - 1, _status(self._choice))

    def closing(self, head: Head, usage: Usage) -> bytes:
        response = self._finished(head, self._choice, usage)
        return self._event(f"response.{response['status']}", response=response)

    def failure(self, head: Head, error: ApiError) -> bytes:
        code = "server_error" if error.status >= 500 else "invalid_prompt"
        last = len(self._choice.parts) - 1
        output = [self._item(head, i, "incomplete" if i == last else "completed") for i in range(last + 1)]
        failed = self._resource(head, "failed", output) | {"error": {"code": code, "message": error.message}}
        return self._event("response.failed", response=failed)

    def document(self, head: Head, choices: list[Choice], usage: Usage, seed: int) -> Document:
        choice = self._choice = choices[0]
        choice.parts = choice.parts or [Part("text")]
        return self._finished(head, choice, usage) | {"seed": seed}

    def _added(self, head: Head, index: int) -> bytes:
        """A part begins."""
        part = self._choice.parts[index]
        empty = _item(head, index, Part(part.kind, part.id, part.name), "in_progress", with_logprobs=False)
        content = empty.pop("content", None)
        item = empty if content is None else {**empty, "content": []}
        data = self._event("response.output_item.added", output_index=index, item=item)
        if content is None:
            return data
        place = self._place(head, index)
        return data + self._event("response.content_part.added", **place, part=content[0])

    def _grown(self, head: Head, index: int, growth: Growth) -> bytes:
        place = self._place(head, index)
        match growth.part.kind:
            case "text":
                logprobs = [_logprob(token) for token in growth.tokens]
                return self._event("response.output_text.delta", **place, delta=growth.piece, logprobs=logprobs)
            case "reasoning":
                return self._event("response.reasoning_text.delta", **place, delta=growth.piece)
        del place["content_index"]
        return self._event("response.function_call_arguments.delta", **place, delta=growth.piece)

    def _done(self, head: Head, index: int, status: str) -> bytes:
        """A part has ended; nothing where there is none before the first."""
        if index < 0:
            return b""
        part, item = self._choice.parts[index], self._item(head, index, status)
        place = self._place(head, index)
        match part.kind:
            case "call":
                del place["content_index"]
                data = self._event(
                    "response.function_call_arguments.done", **place, name=part.name, arguments=part.content
                )
            case "text":
                logprobs = item["content"][0]["logprobs"]
                data = self._event("response.output_text.done", **place, text=part.content, logprobs=logprobs)
            case "reasoning":
                data = self._event("response.reasoning_text.done", **place, text=part.content)
        if part.kind != "call":
            data += self._event("response.content_part.done", **place, part=item["content"][0])
        return data + self._event("response.output_item.done", output_index=index, item=item)

    def _place(self, head: Head, index: int) -> dict[str, Any]:
        item_id = _item_id(head, index, self._choice.parts[index])
        return {"item_id": item_id, "output_index": index, "content_index": 0}

    def _item(self, head: Head, index: int, status: str) -> Document:
        part = self._choice.parts[index]
        return _item(head, index, part, status, with_logprobs=self._request.with_logprobs)

    def _event(self, kind: str, **content: Any) -> bytes:
        self._num_events += 1
        return sse({"type": kind, "sequence_number": self._num_events - 1, **content}, kind)

    def _finished(self, head: Head, choice: Choice, usage: Usage) -> Document:
        status = _status(choice)
        last = len(choice.parts) - 1
        output = [self._item(head, index, status if index == last else "completed") for index in range(last + 1)]
        response = self._resource(head, status, output)
        if status == "incomplete":
            reason = "max_output_tokens" if choice.finish_reason == "length" else "content_filter"
            response["incomplete_details"] = {"reason": reason}
        else:
            response["completed_at"] = int(time.time())
        return response | {"usage": _usage(usage)}

    def _resource(self, head: Head, status: str, output: list[Document]) -> Document:
        """What is asked and what holds for it, around the output."""
        asked = self._request
        chosen = asked.tool_choice or "auto"
        text_format = asked.text.format if asked.text else None
        return {
            "id": f"resp_{head.id}",
            "object": "response",
            "created_at": head.created,
            "completed_at": None,
            "status": status,
            "background": False,
            "error": None,
            "frequency_penalty": self._params.frequency_penalty,
            "incomplete_details": None,
            "instructions": asked.instructions,
            "max_output_tokens": asked.max_output_tokens,
            "max_tool_calls": None,
            "metadata": asked.metadata or {},
            "model": head.model,
            "output": output,
            "parallel_tool_calls": asked.parallel_tool_calls is not False,
            "presence_penalty": self._params.presence_penalty,
            "previous_response_id": None,
            "prompt_cache_key": asked.prompt_cache_key,
            "reasoning": None,
            "safety_identifier": asked.safety_identifier,
            "service_tier": "default",
            "store": False,
            "system_fingerprint": head.fingerprint,
            "temperature": self._params.temperature,
            "text": {"format": text_format.model_dump(by_alias=True) if text_format else {"type": "text"}},
            "tool_choice": chosen if isinstance(chosen, str) else chosen.model_dump(),
            "tools": [tool.document() for tool in asked.tools or ()],
            "top_logprobs": asked.top_logprobs or 0,
            "top_p": self._params.top_p,
            "truncation": "disabled",
            "usage": None,
            "user": asked.user,
        }


def _status(choice: Choice) -> str:
    return "incomplete" if choice.finish_reason in ("length", "content_filter") else "completed"


def _item_id(head: Head, index: int, part: Part) -> str:
    return f"{_PREFIXES[part.kind]}_{head.id}_{index}"


def _item(head: Head, index: int, part: Part, status: str, *, with_logprobs: bool) -> Document:
    item_id = _item_id(head, index, part)
    if part.kind == "call":
        call = {"call_id": part.id, "name": part.name, "arguments": part.content}
        return {"type": "function_call", "id": item_id, "status": status, **call}
    if part.kind == "reasoning":
        content = [{"type": "reasoning_text", "text": part.content}]
        return {"type": "reasoning", "id": item_id, "status": status, "summary": [], "content": content}
    logprobs = [_logprob(token) for token in part.tokens] if with_logprobs else []
    text = {"type": "output_text", "text": part.content, "annotations": [], "logprobs": logprobs}
    return {"type": "message", "id": item_id, "status": status, "role": "assistant", "content": [text]}


def _logprob(token: dict[str, Any]) -> Document:
    return {**_entry(token), "top_logprobs": [_entry(top) for top in token["top"]]}


def _entry(token: dict[str, Any]) -> Document:
    return {"token": token["token"], "bytes": token["bytes"], "logprob": token["logprob"]}


def _usage(usage: Usage) -> Document:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
