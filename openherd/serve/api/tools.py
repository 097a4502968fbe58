"""Tools that a request offers, and what it says about calling them, in OpenAI's form."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field

from openherd.serve.api.requests import Strict
from openherd.serve.front.errors import ApiError
from openherd.serve.wire import Frame

MAX_TOOLS = 128  # OpenAI's

FunctionName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]


class Function(Strict):
    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Strict):
    type: Literal["function"]
    function: Function

    def document(self) -> dict[str, Any]:
        """As it goes to the worker: without what was not given, while a null inside a schema means something."""
        function = self.function
        given: dict[str, Any] = {
            "name": function.name,
            "description": function.description,
            "parameters": function.parameters,
            "strict": function.strict,
        }
        return {"type": "function", "function": {key: value for key, value in given.items() if value is not None}}


class ChosenFunction(Strict):
    name: FunctionName


class ChosenTool(Strict):
    type: Literal["function"]
    function: ChosenFunction


Tools: TypeAlias = Annotated[list[Tool], Field(max_length=MAX_TOOLS, fail_fast=True)]
ToolChoice: TypeAlias = Literal["none", "auto", "required"] | ChosenTool


def tool_frame(tools: list[dict[str, Any]], choice: str | dict[str, str], *, parallel: bool) -> Frame:
    """The fields of a `generate` frame. `tools` in OpenAI's form; `choice`: a mode, or `{"name": NAME}`.

    Raises `ApiError` for what contradicts itself.
    """
    names = [tool["function"]["name"] for tool in tools]
    if twice := next((name for place, name in enumerate(names) if name in names[:place]), None):
        raise ApiError(400, f"two tools are called {twice!r}", param="tools", code="invalid_value")
    if not tools and choice not in ("none", "auto"):
        raise ApiError(400, "tool_choice asks for a call, and there are no tools", param="tool_choice")
    if isinstance(choice, dict) and choice["name"] not in names:
        message = f"tool_choice names {choice['name']!r}, which is none of the tools"
        raise ApiError(400, message, param="tool_choice", code="invalid_value")
    return {"tools": tools or None, "tool_choice": choice, "parallel_tool_calls": parallel}
