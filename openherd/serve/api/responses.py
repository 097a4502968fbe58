"""POST /v1/responses: the next step of a conversation, as OpenAI's newer API has it. Nothing is stored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, Tag

from openherd.options import SamplingParams
from openherd.serve.api.conversation import MAX_MESSAGES
from openherd.serve.api.requests import Label, OnlyFalse, Refused, Strict, by_type, unused
from openherd.serve.api.response_items import InputItem, conversation
from openherd.serve.api.sampling import EngineRequest, JsonObjectFormat, TextFormat
from openherd.serve.api.tools import MAX_TOOLS, FunctionName, tool_frame
from openherd.serve.wire import Frame

# What this API calls the engine's parameters.
NAMES: Mapping[str, str] = {
    "max_tokens": "max_output_tokens",
    "logprobs": "top_logprobs",
    "response_format": "text.format",
    ".function": "",
}
LOGPROBS = "message.output_text.logprobs"


class SchemaFormat(Strict):
    type: Literal["json_schema"]
    name: str = Field(max_length=64, description="A name for the caller.")
    schema_: dict[str, Any] | bool = Field(alias="schema", description="The JSON schema.")
    description: str | None = None
    strict: bool | None = Field(default=None, description="The answer follows the schema in any case.")


class TextConfig(Strict):
    format: (
        Annotated[
            Annotated[TextFormat, Tag("type:text")]
            | Annotated[JsonObjectFormat, Tag("type:json_object")]
            | Annotated[SchemaFormat, Tag("type:json_schema")],
            by_type("text", "json_object", "json_schema"),
        ]
        | None
    ) = None
    verbosity: Refused = None


class FunctionTool(Strict):
    type: Literal["function"]
    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None

    def document(self) -> dict[str, Any]:
        """As answers repeat it."""
        return {
            "type": "function",
            "name": self.name,
            "description": self.description,
            "parameters": self.parameters,
            "strict": self.strict,
        }

    def plain(self) -> dict[str, Any]:
        """As the worker takes it: without what was not given."""
        return {
            "type": "function",
            "function": {k: v for k, v in self.document().items() if k != "type" and v is not None},
        }


class ChosenFunction(Strict):
    type: Literal["function"]
    name: FunctionName


class AllowedTools(Strict):
    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: Annotated[list[ChosenFunction], Field(min_length=1, max_length=MAX_TOOLS)]


ToolChoice: TypeAlias = (
    Literal["none", "auto", "required"]
    | Annotated[
        Annotated[ChosenFunction, Tag("type:function")] | Annotated[AllowedTools, Tag("type:allowed_tools")],
        by_type("function", "allowed_tools"),
    ]
)


class StreamOptions(Strict):
    include_obfuscation: OnlyFalse | None = Field(default=None, description="Padding is not added.")


class ResponsesRequest(EngineRequest):
    model: str = Field(max_length=512, description="Which model.")
    input: str | Annotated[list[InputItem], Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)] = Field(
        description="A text, or the conversation so far: messages, function calls and what they gave, reasoning."
    )
    instructions: str | None = Field(default=None, description="A system message before the input.")
    max_output_tokens: int | None = Field(default=None, description="Most tokens to generate, reasoning included.")
    text: TextConfig | None = Field(
        default=None, description="format: text, json_object, or json_schema with the schema that the answer follows."
    )
    tools: Annotated[list[FunctionTool], Field(max_length=MAX_TOOLS, fail_fast=True)] | None = Field(
        default=None, description="Functions that the model may call, at most 128."
    )
    tool_choice: ToolChoice | None = Field(
        default=None, description="none, auto, required, the one function that must be called, or allowed_tools."
    )
    parallel_tool_calls: bool | None = Field(default=None, description="Whether an answer may make several calls.")
    top_logprobs: int | None = Field(
        default=None, description="Report the log-probability of each token, with this many alternatives, at most 20."
    )
    include: (
        Annotated[list[Literal["message.output_text.logprobs", "reasoning.encrypted_content"]], Field(max_length=16)]
        | None
    ) = Field(default=None, description="Log-probabilities; reasoning is in clear, so that it needs no other form.")
    metadata: dict[Annotated[str, Field(max_length=64)], Label] | None = Field(
        default=None, max_length=16, description="Repeated in the answer."
    )
    store: OnlyFalse | None = Field(default=None, description="Nothing is stored.")
    truncation: Literal["disabled"] | None = Field(default=None, description="Nothing is ever cut.")
    background: OnlyFalse | None = Field(default=None, description="Answers are given at once.")
    service_tier: Literal["auto", "default"] | None = Field(default=None, description="There is one.")
    stream_options: StreamOptions | None = Field(default=None, description="include_obfuscation: only false.")
    safety_identifier: Label | None = unused(description="Nothing is stored about users.")
    prompt_cache_key: Label | None = unused(description="Equal prefixes are found without it.")
    user: Label | None = unused(description="Nothing is stored about users.")
    access_programs: Refused = None
    background_options: Refused = None
    context_management: Refused = None
    conversation: Refused = Field(default=None, description="Nothing is stored.")
    image: Refused = None
    max_tool_calls: Refused = None
    moderation: Refused = None
    previous_response_id: Refused = Field(default=None, description="Nothing is stored: send the conversation.")
    prompt: Refused = Field(default=None, description="Nothing is stored.")
    prompt_cache_options: Refused = None
    prompt_cache_retention: Refused = None
    reasoning: Refused = None

    @property
    def with_logprobs(self) -> bool:
        return self.top_logprobs is not None or LOGPROBS in (self.include or ())

    def params(self) -> SamplingParams:
        """Raises `ApiError` that names the parameter out of range."""
        logprobs = (self.top_logprobs or 0) if self.with_logprobs else None
        return self.engine_params(NAMES, max_tokens=self.max_output_tokens, logprobs=logprobs)

    def frame(self, params: dict[str, Any]) -> Frame:
        """What the worker is asked. Raises `ApiError` for what contradicts itself."""
        return {
            "op": "generate",
            "prompts": [conversation(self.instructions, self.input)],
            "prompt_name": "input",
            "params": params,
            "schema": self._schema(),
            **self._tool_frame(),
        }

    def _schema(self) -> dict[str, Any] | bool | None:
        match self.text.format if self.text else None:
            case SchemaFormat(schema_=schema):
                return schema
            case JsonObjectFormat():
                return {"type": "object"}
        return None

    def _tool_frame(self) -> Frame:
        tools = [tool.plain() for tool in self.tools or ()]
        parallel = self.parallel_tool_calls is not False
        match self.tool_choice:
            case ChosenFunction(name=name):
                return tool_frame(tools, {"name": name}, parallel=parallel)
            case AllowedTools(mode=mode, tools=allowed):
                for chosen in allowed:
                    tool_frame(tools, {"name": chosen.name}, parallel=parallel)  # refuses what is none of the tools
                names = {chosen.name for chosen in allowed}
                offered = [tool for tool in tools if tool["function"]["name"] in names]
                return tool_frame(offered, mode, parallel=parallel)
        return tool_frame(tools, self.tool_choice or "auto", parallel=parallel)
