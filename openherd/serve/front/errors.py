"""Errors in the API's own shape, whatever went wrong.

OpenAI's is `{"error": {"message", "type", "param", "code"}}`, and holds wherever no other does; Anthropic's is
`{"type": "error", "error": {"type", "message"}}`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

# Everything under it is in Anthropic's shape.
ANTHROPIC_PATH = "/v1/messages"

_ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}
_TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error", 503: "overloaded_error"}


class ApiError(Exception):
    """An answer that is an error. `param`: which parameter to change. `headers`: such as Retry-After."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.headers = dict(headers or {})

    def body(self, path: str = "") -> dict[str, Any]:
        """In the shape of the API that has this path."""
        if path.startswith(ANTHROPIC_PATH):
            kind = _ANTHROPIC_TYPES.get(self.status, _class_of(self.status, "api_error"))
            named = self.param is None or self.param in self.message
            message = self.message if named else f"{self.param}: {self.message}"
            return {"type": "error", "error": {"type": kind, "message": message}}
        kind = _TYPES.get(self.status, _class_of(self.status, "server_error"))
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self, path: str = "") -> Response:
        body = json.dumps(self.body(path), ensure_ascii=False).encode("utf-8", "replace")
        return Response(body, self.status, self.headers, "application/json")

    def renamed(self, names: Mapping[str, str]) -> ApiError:
        """The same about parameters as an API calls them, which the engine calls otherwise.

        `names`: of whole parameters; those that begin with a dot, of what is inside of one.
        """
        if self.param is None:
            return self
        name = names.get(self.param, self.param)
        for inside, its_name in names.items():
            if inside.startswith("."):
                name = name.replace(inside, its_name)
        message = re.sub(rf"\A{re.escape(self.param)}\b", name, self.message)
        return ApiError(self.status, message, param=name, code=self.code, headers=self.headers)


def _class_of(status: int, fault_of_ours: str) -> str:
    return fault_of_ours if status >= 500 else "invalid_request_error"


def unavailable(message: str, *, retry_after_s: int = 1) -> ApiError:
    """503: not now, but soon."""
    return ApiError(503, message, code="unavailable", headers={"Retry-After": str(retry_after_s)})


def error_of(event: Mapping[str, Any]) -> ApiError:
    """What an error event of a worker's says to the client."""
    headers = {"Retry-After": "1"} if event["status"] == 503 else None
    return ApiError(event["status"], event["message"], param=event["param"], code=event["code"], headers=headers)


def install_error_handlers(app: FastAPI) -> None:
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(Exception, _defect)


async def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error.response(request.scope["path"])


async def _http_error(request: Request, error: Exception) -> Response:
    """What the router refuses: paths and methods."""
    assert isinstance(error, HTTPException)
    messages = {
        404: "there is nothing at this path; GET /openapi.json lists what there is",
        405: f"this path does not take {request.method}" if request.method.isascii() else "unknown method",
    }
    message = messages.get(error.status_code, str(error.detail))
    return ApiError(error.status_code, message, headers=error.headers).response(request.scope["path"])


async def _validation_error(request: Request, error: Exception) -> Response:
    """Of path and query parameters; bodies are read by `api.requests`."""
    refusal = ApiError(400, "a parameter of the path or the query is not what this path takes")
    return refusal.response(request.scope["path"])


async def _defect(request: Request, error: Exception) -> Response:
    return ApiError(500, "the server made a mistake; its log says which").response(request.scope["path"])
