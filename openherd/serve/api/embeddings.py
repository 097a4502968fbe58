"""POST /v1/embeddings: a vector of each text, as OpenAI's API has it."""

from __future__ import annotations

import base64
import struct
from typing import Annotated, Literal

from pydantic import Field

from openherd.serve.api.answers import Usage
from openherd.serve.api.completions import TokenIds
from openherd.serve.api.events import json_bytes
from openherd.serve.api.requests import ApiRequest, Label, Refused, unused
from openherd.serve.front.errors import ApiError
from openherd.serve.wire import Frame

MAX_TEXTS = 2048  # OpenAI's
Text = Annotated[str, Field(min_length=1)]


class EmbeddingRequest(ApiRequest):
    input: Text | TokenIds | Annotated[list[Text] | list[TokenIds], Field(min_length=1)] = Field(
        description="Text or token ids, or a list of either, of at most 2048: each becomes a vector."
    )
    model: str | None = Field(default=None, max_length=512, description="Which model; null: the first.")
    encoding_format: Literal["float", "base64"] | None = Field(
        default=None, description="Numbers, or the bytes of little-endian float32 in base64."
    )
    dimensions: Refused = Field(default=None, description="A vector has the model's width.")
    user: Label | None = unused(description="Nothing is stored about users.")

    def frame(self) -> Frame:
        """Raises `ApiError` for too many texts."""
        texts = [self.input] if isinstance(self.input, str) or isinstance(self.input[0], int) else list(self.input)
        if len(texts) > MAX_TEXTS:
            raise ApiError(
                400, f"input has {len(texts)} texts; at most {MAX_TEXTS} are embedded at once", param="input"
            )
        return {"op": "embed", "texts": texts, "prompt_name": "input"}

    def entry(self, index: int, vector: str) -> bytes:
        """One element of the answer's list. `vector`: as the worker sends it, which is base64."""
        shown = vector if self.encoding_format == "base64" else _numbers(vector)
        return json_bytes({"object": "embedding", "index": index, "embedding": shown})


def list_around(model: str, usage: Usage) -> tuple[bytes, bytes]:
    """What stands before and after the list's elements."""
    counted = {"prompt_tokens": usage.prompt_tokens, "total_tokens": usage.prompt_tokens}
    head = json_bytes({"object": "list", "model": model, "usage": counted})
    return head.removesuffix(b"}") + b',"data":[', b"]}"


def _numbers(vector: str) -> list[float]:
    data = base64.b64decode(vector)
    return list(struct.unpack(f"<{len(data) // 4}f", data))
