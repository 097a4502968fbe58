"""The table of parameters, read off the declarations: what is honoured, what has one value, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from types import NoneType
from typing import Literal, NamedTuple, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from openherd.serve.api.chat import ChatRequest
from openherd.serve.api.completions import CompletionRequest
from openherd.serve.api.embeddings import EmbeddingRequest
from openherd.serve.api.messages import CountRequest, MessagesRequest
from openherd.serve.api.models import LoadRequest, UnloadRequest
from openherd.serve.api.requests import UNUSED
from openherd.serve.api.responses import ResponsesRequest
from openherd.serve.api.texts import DetokenizeRequest, RenderRequest, TokenizeRequest

REQUESTS: dict[str, type[BaseModel]] = {
    "/v1/chat/completions": ChatRequest,
    "/v1/completions": CompletionRequest,
    "/v1/responses": ResponsesRequest,
    "/v1/messages": MessagesRequest,
    "/v1/messages/count_tokens": CountRequest,
    "/v1/embeddings": EmbeddingRequest,
    "/tokenize": TokenizeRequest,
    "/detokenize": DetokenizeRequest,
    "/apply-template": RenderRequest,
    "/models/load": LoadRequest,
    "/models/unload": UnloadRequest,
}
"""The body of each POST."""


class Parameter(NamedTuple):
    name: str
    status: str  # "honoured", "only VALUE", "taken, not used" or "400"
    meaning: str


def parameters(request: type[BaseModel]) -> Iterator[Parameter]:
    """Of one API, honoured ones first."""
    found = [
        Parameter(field.alias or name, _status(field), field.description or "")
        for name, field in request.model_fields.items()
    ]
    yield from sorted(found, key=lambda parameter: parameter.status == "400")


def _status(field: FieldInfo) -> str:
    if field.annotation is NoneType:
        return "400"
    if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get(UNUSED):
        return "taken, not used"
    parts = list(_parts(field.annotation))
    values = [value for part in parts if get_origin(part) is Literal for value in get_args(part)]
    if any(isinstance(part, type) and issubclass(part, BaseModel) for part in parts):
        return "honoured"
    shown = " or ".join(str(value).lower() if isinstance(value, bool) else str(value) for value in values)
    return f"only {shown}" if values else "honoured"


def _parts(annotation: object) -> Iterator[object]:
    """A type, its alternatives, and what lists and annotated types among them hold, however deep."""
    yield annotation
    if get_origin(annotation) is not Literal:
        for part in get_args(annotation):
            yield from _parts(part)
