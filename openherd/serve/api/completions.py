"""POST /v1/completions: text that goes on, as OpenAI's older API has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from itertools import accumulate
from typing import Annotated, Any

from pydantic import Field

from openherd.serve.api.answers import Choice, Document, Head, Usage
from openherd.serve.api.events import DONE, sse
from openherd.serve.api.requests import OnlyFalse, OnlyOne, Refused
from openherd.serve.api.sampling import SamplingRequest
from openherd.serve.front.errors import ApiError
from openherd.serve.wire import Event, Frame

MAX_PROMPTS = 128
# Choices of all prompts together; each is a sequence of the engine.
MAX_CHOICES = 128
TokenIds = Annotated[list[int], Field(min_length=1, fail_fast=True)]


class CompletionRequest(SamplingRequest):
    prompt: str | TokenIds | Annotated[list[str] | list[TokenIds], Field(min_length=1, max_length=MAX_PROMPTS)] = Field(
        description="Text or token ids, or a list of either: each is answered."
    )
    logprobs: int | None = Field(
        default=None, description="Report the log-probability of each token, with this many alternatives, at most 20."
    )
    best_of: OnlyOne | None = Field(default=None, description="Every answer is given out.")
    echo: OnlyFalse | None = Field(default=None, description="The prompt is not repeated.")
    suffix: Refused = None

    def answer_format(self) -> CompletionFormat:
        params = self.sampling(logprobs=self.logprobs)
        prompts = self._prompts()
        if len(prompts) * params.n > MAX_CHOICES:
            raise ApiError(400, f"prompts times n is more than {MAX_CHOICES}", param="n", code="invalid_value")
        return CompletionFormat(self, prompts, asdict(params))

    def _prompts(self) -> list[Any]:
        if isinstance(self.prompt, str) or isinstance(self.prompt[0], int):
            return [self.prompt]
        return list(self.prompt)


class CompletionFormat:
    """Documents of type text_completion, whole and as chunks."""

    names: Mapping[str, str] = {}

    def __init__(self, request: CompletionRequest, prompts: list[Any], params: dict[str, Any]) -> None:
        self.frame: Frame = {
            "op": "generate",
            "prompts": prompts,
            "prompt_name": "prompt",
            "params": params,
            "schema": request.schema_asked,
        }
        self.num_choices: int = len(prompts) * params["n"]
        self._wants_usage = request.wants_usage
        self._with_logprobs = request.logprobs is not None
        self._offsets = [0] * self.num_choices  # characters sent of each choice

    def opening(self, head: Head, usage: Usage) -> bytes:
        return b""

    def delta(self, head: Head, event: Event) -> bytes:
        choice = event["choice"]
        logprobs = self._logprobs(event["tokens"] or [], self._offsets[choice])
        self._offsets[choice] += len(event["text"])
        return self._chunk(head, choice, event["text"], logprobs, None)

    def ending(self, head: Head, event: Event) -> bytes:
        return self._chunk(head, event["choice"], "", None, event["finish_reason"])

    def closing(self, head: Head, usage: Usage) -> bytes:
        if not self._wants_usage:
            return DONE
        return sse({**self._head(head), "choices": [], "usage": usage.document()}) + DONE

    def failure(self, head: Head, error: ApiError) -> bytes:
        return sse(error.body())

    def document(self, head: Head, choices: list[Choice], usage: Usage, seed: int) -> Document:
        return {
            **self._head(head),
            "choices": [
                {
                    "index": index,
                    "text": choice.text,
                    "logprobs": self._logprobs(choice.tokens, 0),
                    "finish_reason": choice.finish_reason,
                }
                for index, choice in enumerate(choices)
            ],
            "usage": usage.document(),
            "seed": seed,
        }

    def _chunk(self, head: Head, choice: int, text: str, logprobs: Document | None, reason: str | None) -> bytes:
        entry = {"index": choice, "text": text, "logprobs": logprobs, "finish_reason": reason}
        chunk = {**self._head(head), "choices": [entry]}
        return sse({**chunk, "usage": None} if self._wants_usage else chunk)

    def _head(self, head: Head) -> Document:
        return {
            "id": f"cmpl-{head.id}",
            "object": "text_completion",
            "created": head.created,
            "model": head.model,
            "system_fingerprint": head.fingerprint,
        }

    def _logprobs(self, tokens: list[dict[str, Any]], offset: int) -> Document | None:
        """Lists side by side. Offsets count the characters of whole tokens; bytes of half characters add none."""
        if not self._with_logprobs:
            return None
        texts = [token["token"] for token in tokens]
        return {
            "tokens": texts,
            "token_logprobs": [token["logprob"] for token in tokens],
            "top_logprobs": [{top["token"]: top["logprob"] for top in token["top"]} for token in tokens],
            "text_offset": list(accumulate(map(len, texts[:-1]), initial=offset)) if texts else [],
        }
