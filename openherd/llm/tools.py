"""Functions that a model may ask to be called: what a caller offers, and how it is to be used."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from openherd.errors import ToolError

MAX_TOOLS = 128  # OpenAI's
MAX_TOOLS_BYTES = 256 * 1024  # of all descriptions and schemas together
MAX_DEPTH = 64  # of one description: Python writes JSON by recursion
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
# Keywords beside which `properties` alone does not say which keys an object has.
_MORE_PROPERTIES = {
    "additionalProperties", "patternProperties", "unevaluatedProperties", "allOf", "anyOf", "oneOf", "if", "$ref",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class NamedTool:
    """The one function that must be called."""

    name: str


# none: they are not offered. auto: the model decides. required: it calls one. Or the one that it must call.
ToolChoice: TypeAlias = Literal["none", "auto", "required"] | NamedTool


@dataclass(frozen=True, slots=True)
class Tool:
    """One function."""

    name: str
    schema: Mapping[str, Any]  # of its arguments: always of an object
    is_strict: bool  # its arguments follow the schema even where the model decides whether to call it
    document: Mapping[str, Any]  # OpenAI's form, which templates take


@dataclass(frozen=True, slots=True)
class Toolbox:
    """What may be called in one answer. Without tools nothing is."""

    tools: tuple[Tool, ...] = ()
    choice: ToolChoice = "auto"
    parallel: bool = True  # several calls in one answer
    by_name: Mapping[str, Tool] = field(default_factory=dict)

    @property
    def must_call(self) -> bool:
        return bool(self.tools) and self.choice not in ("none", "auto")

    @property
    def callable(self) -> tuple[Tool, ...]:
        """The functions that this answer may call."""
        if isinstance(self.choice, NamedTool):
            return (self.by_name[self.choice.name],)
        return self.tools

    @property
    def documents(self) -> list[Mapping[str, Any]] | None:
        """For the chat template; None when there is nothing to offer."""
        return [tool.document for tool in self.tools] or None


def toolbox(tools: Sequence[Mapping[str, Any]] | None, choice: ToolChoice, *, parallel: bool) -> Toolbox:
    """From function tools in OpenAI's form. Raises `ToolError` that names what is wrong."""
    if len(tools or ()) > MAX_TOOLS:
        raise ToolError(f"there are {len(tools or ())} tools; at most {MAX_TOOLS} are offered", param="tools")
    offered = tuple(_tool(tool, f"tools[{place}]") for place, tool in enumerate(tools or ()))
    by_name = {tool.name: tool for tool in offered}
    if len(by_name) < len(offered):
        raise ToolError("two tools have the same name", param="tools")
    if isinstance(choice, NamedTool) and choice.name not in by_name:
        raise ToolError(f"tool_choice names {choice.name[:64]!r}, which is none of the tools", param="tool_choice")
    if choice == "required" and not offered:
        raise ToolError("tool_choice asks for a call, and there are no tools", param="tool_choice")
    if sum(len(_json(tool.document)) for tool in offered) > MAX_TOOLS_BYTES:
        raise ToolError(f"the tools are longer than {MAX_TOOLS_BYTES} bytes together", param="tools")
    return Toolbox() if choice == "none" else Toolbox(offered, choice, parallel, by_name)


def _tool(tool: object, path: str) -> Tool:
    function = tool.get("function") if isinstance(tool, Mapping) and tool.get("type") == "function" else None
    if not isinstance(function, Mapping) or not isinstance(tool, Mapping):
        raise ToolError(f"{path} is not {{'type': 'function', 'function': ...}}", param=path)
    name, parameters = function.get("name"), function.get("parameters")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ToolError("a function's name is 1 to 64 of a-z, A-Z, 0-9, _ and -", param=f"{path}.function.name")
    param = f"{path}.function.parameters"
    if parameters is not None and not isinstance(parameters, Mapping):
        raise ToolError(f"the parameters of {name} are not a JSON schema", param=param)
    _check_depth(tool, path)
    return Tool(name, _object_schema(parameters or {}, name, param), function.get("strict") is True, tool)


def _object_schema(schema: Mapping[str, Any], name: str, param: str) -> dict[str, Any]:
    """A schema of one object. Where it lists properties and says nothing of others, there are no others: a key that
    the function does not know helps nobody."""
    if schema.get("type", "object") != "object":
        raise ToolError(f"the parameters of {name} must have the type object", param=param)
    schema = {"type": "object", **schema}
    properties, required = schema.setdefault("properties", {}), schema.get("required", ())
    is_whole = isinstance(properties, Mapping) and isinstance(required, (list, tuple))
    if (
        is_whole
        and not _MORE_PROPERTIES & schema.keys()
        and all(isinstance(key, str) and key in properties for key in required)
    ):
        schema["additionalProperties"] = False
    return schema


def _check_depth(value: object, path: str) -> None:
    stack = [(value, 0)]
    while stack:
        node, depth = stack.pop()
        if depth > MAX_DEPTH:
            raise ToolError(f"{path} is nested deeper than {MAX_DEPTH} levels", param=path)
        if isinstance(node, Mapping):
            stack.extend((child, depth + 1) for child in node.values())
        elif isinstance(node, (list, tuple)):
            stack.extend((child, depth + 1) for child in node)


def _json(document: Mapping[str, Any]) -> str:
    try:
        return json.dumps(document)
    except (TypeError, ValueError) as error:
        raise ToolError(f"a tool is described by JSON values: {error}", param="tools") from None
