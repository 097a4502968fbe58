"""Reading a request's body: declared parameters only, and errors that name the one to change.

A parameter has a field here or it is refused. One that other servers know and this one does not do has the type
`Refused`: null alone is taken. One that has a single value here is a `Literal`. `parameters.py` turns these
declarations into the manual's table.
"""

from __future__ import annotations

import gc
import json
import re
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, ValidationError
from pydantic_core import PydanticKnownError
from starlette.requests import Request

from openherd.serve.api.json_size import JsonSize
from openherd.serve.front.errors import ApiError

# A parameter that is known and not done here.
Refused: TypeAlias = None


def _of_type(kind: type) -> BeforeValidator:
    """Python finds 0 equal to False and true to 1, and so does a `Literal`; to a client they are different things."""

    def check(value: Any) -> Any:
        if value is not None and type(value) is not kind:
            raise PydanticKnownError("literal_error", {"expected": "False" if kind is bool else "1"})
        return value

    return BeforeValidator(check)


# Of a parameter that does here only what it does by default.
OnlyFalse: TypeAlias = Annotated[Literal[False], _of_type(bool)]
OnlyOne: TypeAlias = Annotated[Literal[1], _of_type(int)]
# Of a parameter that is for the caller's own books: nothing is stored, and no answer depends on it.
UNUSED = "x-unused"
Label = Annotated[str, Field(max_length=512)]


def unused(**limits: Any) -> Any:
    """The field of such a parameter."""
    return Field(default=None, json_schema_extra={UNUSED: True}, **limits)


# Beyond so many mistakes they are counted, not named: naming each costs five times as much as finding it.
_MAX_NAMED_MISTAKES = 64
_MAX_ERROR_CHARACTERS = 300
_FIELD = re.compile(r"[a-z_][a-z0-9_]*\Z")
_TYPE_NAMES = frozenset({"str", "int", "float", "bool", "none", "dict", "list"})


class Strict(BaseModel):
    """No conversions ("1" is not 1), no unknown keys."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


def by_type(*known: str, default: str = "") -> Discriminator:
    """Chooses a union's member by the key `type`; each is `Annotated[MODEL, Tag(f"type:{name}")]`.

    The colon keeps the tag out of the paths of errors. `default`: the type of what says none.
    """

    def tag(value: Any) -> str:
        kind = value.get("type", default) if isinstance(value, dict) else getattr(value, "type", default)
        return f"type:{kind}"

    expected = f"Input should have a type that is known here ({', '.join(known)})"
    return Discriminator(tag, custom_error_type="unknown_type", custom_error_message=expected)


class ApiRequest(Strict):
    """A request's body."""

    @classmethod
    async def read(cls, request: Request) -> Self:
        """Raises `ApiError` 400, 413 or 415."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json" and not kind.endswith("+json"):
            raise ApiError(415, "the body must be JSON, with the header Content-Type: application/json")
        body = await request.body()
        JsonSize().take(body)
        # A pass of the collector over the values that are being made would take as long as making them.
        gc.disable()
        try:
            return cls.model_validate_json(body)
        except ValidationError as error:
            raise _refusal(error) from None
        finally:
            gc.enable()


def _refusal(error: ValidationError) -> ApiError:
    """The deepest of the errors is the one meant, and rather a wrong value than a wrong type: alternatives of a type
    each have one."""
    if error.error_count() > _MAX_NAMED_MISTAKES:
        return ApiError(400, f"the body has {error.error_count()} unknown, missing or wrong parameters")
    found = error.errors(include_url=False, include_context=False)
    first = max(found, key=lambda mistake: (len(mistake["loc"]), not mistake["type"].endswith("_type")))
    param = _path(first["loc"])
    match first["type"]:
        case "json_invalid":
            return ApiError(400, f"the body is not valid JSON: {first['msg'].partition(': ')[2]}")
        case "extra_forbidden":
            return ApiError(400, f"unknown parameter: {param}", param=param, code="unknown_parameter")
        case "missing":
            return ApiError(400, f"missing parameter: {param}", param=param, code="missing_parameter")
        case "none_required":
            return ApiError(400, f"{param} is not supported", param=param, code="unsupported_parameter")
    shown = _shown(first["input"])
    return ApiError(400, f"{param or 'the body'}: {first['msg']}, not {shown}", param=param, code="invalid_value")


def _path(location: tuple[int | str, ...]) -> str | None:
    """`messages[0].content`, without the names of types and alternatives that pydantic puts between."""
    path, last = "", None
    for place, part in enumerate(location):
        if isinstance(part, int):
            path += f"[{part}]"
        elif place == 0 or (_FIELD.match(part) and part not in _TYPE_NAMES and part != last):
            path += f".{part}" if path else part
        last = part
    return path[:_MAX_ERROR_CHARACTERS].encode("utf-8", "replace").decode() or None


def _is_name(value: Any) -> bool:
    """null, true or false."""
    return value is None or isinstance(value, bool)


def _shown(value: Any) -> str:
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "a list"
    if isinstance(value, int) and abs(value) > 10**20:
        return "a number of many digits"
    text = repr(value) if isinstance(value, str) else json.dumps(value) if _is_name(value) else str(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
