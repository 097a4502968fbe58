"""POST /v1/chat/completions: the next message of a conversation, as OpenAI's API has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any, Literal

from pydantic import Field

from openherd.serve.api.answers import Choice, Document, Head, Usage
from openherd.serve.api.conversation import MAX_MESSAGES, ChatMessage, plain_messages
from openherd.serve.api.events import DONE, sse
from openherd.serve.api.requests import Label, OnlyFalse, Refused, unused
from openherd.serve.api.sampling import SamplingRequest
from openherd.serve.api.tools import ChosenTool, ToolChoice, Tools, tool_frame
from openherd.serve.front.errors import ApiError
from openherd.serve.wire import Event, Frame


class ChatRequest(SamplingRequest):
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)] = Field(
        description="The conversation so far; content is text, or a list of text parts."
    )
    max_completion_tokens: int | None = Field(default=None, description="The newer name of max_tokens.")
    logprobs: bool | None = Field(default=None, description="Report the log-probability of each token.")
    top_logprobs: int | None = Field(default=None, description="With this many alternatives each, at most 20.")
    tools: Tools | None = Field(default=None, description="Functions that the model may call, at most 128.")
    tool_choice: ToolChoice | None = Field(
        default=None, description="none, auto, required, or the one function that must be called."
    )
    parallel_tool_calls: bool | None = Field(default=None, description="Whether an answer may make several calls.")
    modalities: list[Literal["text"]] | None = Field(default=None, max_length=1, description="What is answered.")
    store: OnlyFalse | None = Field(default=None, description="Nothing is stored.")
    service_tier: Literal["auto", "default"] | None = Field(default=None, description="There is one.")
    metadata: dict[str, Label] | None = unused(max_length=16, description="Nothing is stored.")
    safety_identifier: Label | None = unused(description="Nothing is stored about users.")
    prompt_cache_key: Label | None = unused(description="Equal prefixes are found without it.")
    audio: Refused = None
    function_call: Refused = None
    functions: Refused = None
    moderation: Refused = None
    prediction: Refused = None
    prompt_cache_options: Refused = None
    prompt_cache_retention: Refused = None
    reasoning_effort: Refused = None
    verbosity: Refused = None
    web_search_options: Refused = None

    def answer_format(self) -> ChatFormat:
        """Raises `ApiError` for what contradicts itself."""
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise ApiError(
                400, "max_tokens and max_completion_tokens are one parameter; give one", param="max_completion_tokens"
            )
        if self.top_logprobs is not None and not self.logprobs:
            raise ApiError(400, "top_logprobs needs logprobs: true", param="top_logprobs")
        changes: dict[str, Any] = {"logprobs": (self.top_logprobs or 0) if self.logprobs else None}
        if self.max_completion_tokens is not None:
            changes["max_tokens"] = self.max_completion_tokens
        return ChatFormat(self, asdict(self.sampling(**changes)))

    def tool_frame(self) -> Frame:
        """Raises `ApiError` for what contradicts itself."""
        choice = self.tool_choice or "auto"
        asked = {"name": choice.function.name} if isinstance(choice, ChosenTool) else choice
        parallel = self.parallel_tool_calls is not False
        return tool_frame([tool.document() for tool in self.tools or ()], asked, parallel=parallel)


class ChatFormat:
    """Documents of type chat.completion and chat.completion.chunk."""

    names: Mapping[str, str] = {}

    def __init__(self, request: ChatRequest, params: dict[str, Any]) -> None:
        self.frame: Frame = {
            "op": "generate",
            "prompts": [plain_messages(request.messages)],
            "prompt_name": "messages",
            "params": params,
            "schema": request.schema_asked,
            **request.tool_frame(),
        }
        self.num_choices: int = params["n"]
        self._wants_usage = request.wants_usage
        self._with_logprobs = bool(request.logprobs)

    def opening(self, head: Head, usage: Usage) -> bytes:
        roles = (self._chunk(head, choice, {"role": "assistant", "content": ""}) for choice in range(self.num_choices))
        return b"".join(roles)

    def delta(self, head: Head, event: Event) -> bytes:
        delta: Document = {}
        if reasoning := event.get("reasoning"):
            delta["reasoning_content"] = reasoning
        if pieces := event.get("tool_calls"):
            delta["tool_calls"] = [_call_chunk(piece) for piece in pieces]
        if event["text"] or not delta:
            delta["content"] = event["text"]
        return self._chunk(head, event["choice"], delta, tokens=event["tokens"])

    def ending(self, head: Head, event: Event) -> bytes:
        return self._chunk(head, event["choice"], {}, finish_reason=event["finish_reason"])

    def closing(self, head: Head, usage: Usage) -> bytes:
        if not self._wants_usage:
            return DONE
        last = {**self._head(head, "chat.completion.chunk"), "choices": [], "usage": usage.document()}
        return sse(last) + DONE

    def failure(self, head: Head, error: ApiError) -> bytes:
        return sse(error.body())

    def document(self, head: Head, choices: list[Choice], usage: Usage, seed: int) -> Document:
        return {
            **self._head(head, "chat.completion"),
            "choices": [
                {
                    "index": index,
                    "message": _message(choice),
                    "logprobs": self._logprobs(choice.tokens),
                    "finish_reason": choice.finish_reason,
                }
                for index, choice in enumerate(choices)
            ],
            "usage": usage.document(),
            "seed": seed,
        }

    def _chunk(
        self,
        head: Head,
        choice: int,
        delta: Document,
        *,
        tokens: list[dict[str, Any]] | None = None,
        finish_reason: str | None = None,
    ) -> bytes:
        chunk = {
            **self._head(head, "chat.completion.chunk"),
            "choices": [
                {
                    "index": choice,
                    "delta": delta,
                    "logprobs": None if tokens is None else self._logprobs(tokens),
                    "finish_reason": finish_reason,
                }
            ],
        }
        return sse({**chunk, "usage": None} if self._wants_usage else chunk)

    def _head(self, head: Head, kind: str) -> Document:
        return {
            "id": f"chatcmpl-{head.id}",
            "object": kind,
            "created": head.created,
            "model": head.model,
            "system_fingerprint": head.fingerprint,
        }

    def _logprobs(self, tokens: list[dict[str, Any]]) -> Document | None:
        if not self._with_logprobs:
            return None
        content = [{**_entry(token), "top_logprobs": [_entry(top) for top in token["top"]]} for token in tokens]
        return {"content": content, "refusal": None}


def _message(choice: Choice) -> Document:
    """Reasoning and calls only where there are; an answer of calls alone has no content."""
    message: Document = {"role": "assistant", "content": choice.text, "refusal": None, "annotations": []}
    if reasoning := choice.reasoning:
        message["reasoning_content"] = reasoning
    if calls := choice.tool_calls:
        message["content"] = choice.text or None
        message["tool_calls"] = [
            {"id": call["id"], "type": "function", "function": {"name": call["name"], "arguments": call["arguments"]}}
            for call in calls
        ]
    return message


def _call_chunk(piece: Document) -> Document:
    if "id" not in piece:
        return {"index": piece["index"], "function": {"arguments": piece["arguments"]}}
    function = {"name": piece["name"], "arguments": piece["arguments"]}
    return {"index": piece["index"], "id": piece["id"], "type": "function", "function": function}


def _entry(token: dict[str, Any]) -> Document:
    return {"token": token["token"], "bytes": token["bytes"], "logprob": token["logprob"]}
