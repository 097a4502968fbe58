"""The OpenAPI document: every path with its body, its answer and its errors.

Bodies are read by `api.requests` and not by FastAPI, which therefore knows of neither.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from openherd.serve.front.errors import ANTHROPIC_PATH

_REFERENCES = "#/components/schemas/{model}"

# What every answer of a path has at the least.
_ANSWERS: dict[str, tuple[str, ...]] = {
    "/v1/chat/completions": ("id", "object", "created", "model", "choices", "usage"),
    "/v1/completions": ("id", "object", "created", "model", "choices", "usage"),
    "/v1/responses": ("id", "object", "created_at", "model", "status", "output", "usage"),
    "/v1/messages": ("id", "type", "role", "model", "content", "stop_reason", "usage"),
    "/v1/messages/count_tokens": ("input_tokens",),
    "/v1/embeddings": ("object", "data", "model", "usage"),
    "/v1/models": ("object", "data"),
    "/models": ("object", "data"),
    "/models/load": ("success", "id", "status"),
    "/models/unload": ("success", "id", "status"),
    "/v1/models/{name}": ("id", "object", "created", "owned_by"),
    "/tokenize": ("tokens", "count"),
    "/detokenize": ("content",),
    "/apply-template": ("prompt",),
    "/health": ("status",),
    "/ready": ("status",),
}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "additionalProperties": False,
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "additionalProperties": False,
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
# Before OpenAPI 3.2 the schema of a stream is the schema of each of its events. Anthropic's and OpenAI's responses name
# theirs; `data` is a document, or [DONE].
_EVENT = {
    "type": "object",
    "required": ["data"],
    "properties": {"event": {"type": "string"}, "data": {"type": "string"}},
}
_ANTHROPIC_ERROR = {
    "type": "object",
    "required": ["type", "error"],
    "additionalProperties": False,
    "properties": {
        "type": {"const": "error"},
        "error": {
            "type": "object",
            "required": ["type", "message"],
            "additionalProperties": False,
            "properties": {"type": {"type": "string"}, "message": {"type": "string"}},
        },
    },
}


def describe(api: FastAPI, bodies: Mapping[str, type[BaseModel]], models: Sequence[str]) -> dict[str, Any]:
    """`bodies`: of each path that takes a POST. `models`: the names that requests can give."""
    document = get_openapi(title=api.title, version=api.version, routes=api.routes)
    # Of all bodies at once, so that models of equal names get different ones.
    made, definitions = models_json_schema([(body, "validation") for body in bodies.values()], ref_template=_REFERENCES)
    schemas = definitions["$defs"] | {"Error": _ERROR, "AnthropicError": _ANTHROPIC_ERROR}
    for schema in schemas.values():
        _name_models(schema.get("properties", {}).get("model"), models)
    document["components"] = {"schemas": schemas}
    for path, operations in document["paths"].items():
        body = bodies.get(path)
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                _name_models(parameter["schema"], models)
            operation["responses"] = _responses(path, body)
            if body is not None:
                operation["requestBody"] = {"required": True, "content": _json(made[body, "validation"])}
    return document


def _name_models(schema: dict[str, Any] | None, models: Sequence[str]) -> None:
    """A string that names a model can be one of these. The names in paths are all of models."""
    for kind in (schema or {}).get("anyOf", [schema] if schema else []):
        if kind.get("type") == "string":
            kind["enum"] = list(models)


def _responses(path: str, body: type[BaseModel] | None) -> dict[str, Any]:
    name = "AnthropicError" if path.startswith(ANTHROPIC_PATH) else "Error"
    error = _json({"$ref": _REFERENCES.format(model=name)})
    responses: dict[str, Any] = {"200": {"description": "The answer.", "content": _answer(path, body)}}
    if path == "/ready":
        responses["503"] = {"description": "No requests are taken now.", "content": _answer(path, body)}
    return {**responses, "default": {"description": "What is wrong.", "content": error}}


def _answer(path: str, body: type[BaseModel] | None) -> dict[str, Any]:
    if path not in _ANSWERS:
        return {"text/plain": {"schema": {"type": "string"}}}
    whole = _json({"type": "object", "required": list(_ANSWERS[path])})
    streams = body is not None and "stream" in body.model_fields
    return whole | ({"text/event-stream": {"schema": _EVENT}} if streams else {})


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
