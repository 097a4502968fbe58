"""What cannot be run, as an error event: an HTTP status, and which parameter to change."""

from __future__ import annotations

import re
from dataclasses import fields

from openherd.errors import ContextLengthError, InputError, OptionError, SchemaError, ToolError
from openherd.options import SamplingParams
from openherd.serve.wire import Event, Frame

_OPTION = re.compile(rf"({'|'.join(field.name for field in fields(SamplingParams))})\b")


def refusal(error: Exception, frame: Frame) -> Event:
    """An error event without its id. Anything but an `InputError` is a fault of ours, and says no more than that."""
    if not isinstance(error, InputError):
        return error_event(500, "the request failed inside the server")
    message = Exception.__str__(error)
    if isinstance(error, ContextLengthError):
        return error_event(400, message, param=_prompt_name(frame), code="context_length_exceeded")
    if isinstance(error, SchemaError):
        return error_event(400, message, param="response_format", code="invalid_schema")
    if isinstance(error, ToolError):
        return error_event(400, message, param=error.param, code="invalid_value")
    if isinstance(error, OptionError) and (option := _OPTION.match(message)):
        return error_event(400, message, param=option[1])
    return error_event(400, message, param=_prompt_name(frame))


def error_event(status: int, message: str, *, param: str | None = None, code: str | None = None) -> Event:
    return {"type": "error", "status": status, "message": message, "param": param, "code": code}


def _prompt_name(frame: Frame) -> str | None:
    name = frame.get("prompt_name")
    return name if isinstance(name, str) else None
