"""POST /tokenize, /detokenize and /apply-template: what the model reads, under the names llama.cpp's server uses."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from openherd.serve.api.conversation import MAX_MESSAGES, ChatMessage, plain_messages
from openherd.serve.api.requests import ApiRequest
from openherd.serve.api.tools import Tools
from openherd.serve.wire import Frame


class TextRequest(ApiRequest):
    model: str | None = Field(default=None, max_length=512, description="Which model; null: the first.")


class TokenizeRequest(TextRequest):
    content: str = Field(description="The text.")
    add_special: bool = Field(default=False, description="Begin with the beginning-of-sequence token.")
    parse_special: bool = Field(default=False, description="Control tokens written in the text count as such.")
    with_pieces: bool = Field(default=False, description="Also the text and the bytes of each token.")

    def frame(self) -> Frame:
        return {"op": "tokenize", "prompt_name": "content", **self.model_dump(exclude={"model"})}


class DetokenizeRequest(TextRequest):
    tokens: Annotated[list[int], Field(fail_fast=True)] = Field(description="Token ids.")

    def frame(self) -> Frame:
        return {"op": "detokenize", "prompt_name": "tokens", "tokens": self.tokens}


class RenderRequest(TextRequest):
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)] = Field(
        description="A conversation, as for /v1/chat/completions."
    )
    tools: Tools | None = Field(default=None, description="Functions that the model may call.")

    def frame(self) -> Frame:
        tools = [tool.document() for tool in self.tools or ()]
        return {"op": "render", "prompt_name": "messages", "messages": plain_messages(self.messages), "tools": tools}
