"""POST /v1/messages and /v1/messages/count_tokens: the next message of a conversation, as Anthropic's API has it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, Tag

from openherd.options import SamplingParams
from openherd.serve.api.conversation import MAX_MESSAGES, CallId, wrong
from openherd.serve.api.requests import ApiRequest, Label, Refused, Strict, by_type, unused
from openherd.serve.api.sampling import MAX_STOPS, EngineRequest, StopString
from openherd.serve.api.tools import MAX_TOOLS, FunctionName, tool_frame
from openherd.serve.api.turns import Turns
from openherd.serve.wire import Frame

# What this API calls the engine's parameters.
NAMES: Mapping[str, str] = {
    "stop": "stop_sequences",
    "response_format": "output_config.format",
    ".function.parameters": ".input_schema",
    ".function": "",
}


class CacheControl(Strict):
    """Equal prefixes are found without it."""

    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] | None = None


class TextBlock(Strict):
    type: Literal["text"]
    text: str
    cache_control: CacheControl | None = None
    citations: Refused = None


class DirectCaller(Strict):
    """The model itself."""

    type: Literal["direct"]


class ToolUseBlock(Strict):
    type: Literal["tool_use"]
    id: CallId
    name: FunctionName
    input: dict[str, Any]
    cache_control: CacheControl | None = None
    caller: DirectCaller | None = None


class ToolResultBlock(Strict):
    type: Literal["tool_result"]
    tool_use_id: CallId
    content: str | Annotated[list[TextBlock], Field(max_length=MAX_MESSAGES, fail_fast=True)] | None = None
    is_error: bool | None = None
    cache_control: CacheControl | None = None

    @property
    def text(self) -> str:
        """Chat templates have no place for a failure but the text."""
        text = joined(self.content or "")
        return f"Error: {text}" if self.is_error else text


class ThinkingBlock(Strict):
    """As answers have it, sent back."""

    type: Literal["thinking"]
    thinking: str
    signature: str = ""


Block: TypeAlias = Annotated[
    Annotated[TextBlock, Tag("type:text")]
    | Annotated[ToolUseBlock, Tag("type:tool_use")]
    | Annotated[ToolResultBlock, Tag("type:tool_result")]
    | Annotated[ThinkingBlock, Tag("type:thinking")],
    by_type("text", "tool_use", "tool_result", "thinking"),
]


class MessageParam(Strict):
    role: Literal["user", "assistant", "system"]
    content: str | Annotated[list[Block], Field(max_length=MAX_MESSAGES, fail_fast=True)]


class Tool(Strict):
    type: Literal["custom"] | None = None
    name: FunctionName
    description: str | None = None
    input_schema: dict[str, Any]
    strict: bool | None = None
    cache_control: CacheControl | None = None

    def plain(self) -> dict[str, Any]:
        """As the worker takes it: without what was not given."""
        given = {"description": self.description, "strict": self.strict}
        function = {key: value for key, value in given.items() if value is not None}
        return {"type": "function", "function": {"name": self.name, "parameters": self.input_schema, **function}}


class ToolChoice(Strict):
    type: Literal["auto", "any", "tool", "none"]
    name: FunctionName | None = None
    disable_parallel_tool_use: bool | None = None

    def plain(self) -> str | dict[str, str]:
        """As the worker takes it. Raises `ApiError` for a name that is missing or has no place."""
        if (self.type == "tool") != (self.name is not None):
            raise wrong("tool_choice.name", "the type tool has a name, and no other type does")
        if self.name is not None:
            return {"name": self.name}
        return "required" if self.type == "any" else self.type


class OutputFormat(Strict):
    type: Literal["json_schema"]
    schema_: dict[str, Any] | bool = Field(alias="schema", description="The JSON schema.")


class OutputConfig(Strict):
    format: OutputFormat | None = None
    effort: Refused = None


class Thinking(Strict):
    type: Literal["adaptive", "disabled"]
    display: Refused = None


class Metadata(Strict):
    user_id: Label | None = None


class ConversationRequest(ApiRequest):
    """What is counted, and what is answered."""

    model: str = Field(max_length=512, description="Which model.")
    messages: Annotated[list[MessageParam], Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)] = Field(
        description="The conversation so far; content is text, or blocks: text, tool_use, tool_result, thinking."
    )
    system: str | Annotated[list[TextBlock], Field(max_length=MAX_MESSAGES, fail_fast=True)] | None = Field(
        default=None, description="A system message before the conversation: text, or blocks of text."
    )
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS, fail_fast=True)] | None = Field(
        default=None, description="Functions that the model may call, at most 128."
    )
    tool_choice: ToolChoice | None = Field(
        default=None, description="auto, any, tool with its name, or none; disable_parallel_tool_use."
    )
    thinking: Thinking | None = Field(
        default=None, description="adaptive: show the thinking of a model that thinks; else it is not shown."
    )
    output_config: OutputConfig | None = Field(
        default=None, description="format: json_schema with the schema that the answer follows."
    )
    cache_control: CacheControl | None = unused(description="Equal prefixes are found without it.")
    speed: Refused = None
    user_profile_id: Refused = None
    workspace_id: Refused = None

    def conversation(self) -> list[dict[str, Any]]:
        """As the worker takes it. Raises `ApiError` that names the block that does not fit."""
        turns = Turns()
        if self.system is not None:
            turns.say("system", joined(self.system))
        for place, message in enumerate(self.messages):
            _add(turns, message, f"messages[{place}]")
        if self.messages[-1].role == "assistant":
            raise wrong("messages", "the last one is the assistant's; an answer cannot be begun for the model")
        return turns.messages

    def tool_frame(self) -> Frame:
        choice = self.tool_choice or ToolChoice(type="auto")
        parallel = not choice.disable_parallel_tool_use
        return tool_frame([tool.plain() for tool in self.tools or ()], choice.plain(), parallel=parallel)

    def frame(self) -> Frame:
        """Of the operation that counts."""
        frame = {"op": "count", "prompt_name": "messages", "messages": self.conversation()}
        return frame | self.tool_frame()


class CountRequest(ConversationRequest):
    pass


class MessagesRequest(ConversationRequest, EngineRequest):
    model: str = Field(max_length=512, description="Which model.")
    max_tokens: int = Field(description="Most tokens to generate, thinking included.")
    stop_sequences: Annotated[list[StopString], Field(max_length=MAX_STOPS)] | None = Field(
        default=None, description="Stop before any of these strings."
    )
    metadata: Metadata | None = unused(description="Nothing is stored about users.")
    service_tier: Literal["auto", "standard_only"] | None = Field(default=None, description="There is one.")
    container: Refused = None
    context_management: Refused = None
    diagnostics: Refused = None
    inference_geo: Refused = None
    mcp_servers: Refused = None

    @property
    def shows_thinking(self) -> bool:
        return self.thinking is not None and self.thinking.type == "adaptive"

    def params(self) -> SamplingParams:
        """Raises `ApiError` that names the parameter out of range."""
        stop = tuple(self.stop_sequences or ())
        return self.engine_params(NAMES, max_tokens=self.max_tokens, stop=stop)

    def generate_frame(self, params: dict[str, Any]) -> Frame:
        """What the worker is asked. Raises `ApiError` for what contradicts itself."""
        output = self.output_config.format if self.output_config else None
        return {
            "op": "generate",
            "prompts": [self.conversation()],
            "prompt_name": "messages",
            "params": params,
            "schema": output.schema_ if output else None,
            **self.tool_frame(),
        }


def joined(content: str | list[TextBlock]) -> str:
    """Blocks are paragraphs, and not pieces of a sentence."""
    return content if isinstance(content, str) else "\n".join(block.text for block in content)


def _add(turns: Turns, message: MessageParam, path: str) -> None:
    if isinstance(message.content, str):
        turns.say(message.role, message.content)
        return
    texts: list[str] = []
    for place, block in enumerate(message.content):
        where = f"{path}.content[{place}]"
        match block:
            case TextBlock():
                texts.append(block.text)
            case ToolResultBlock():
                _check_role(message, "user", where)
                turns.answer(block.tool_use_id, block.text, param=f"{where}.tool_use_id")
            case ToolUseBlock():
                _check_role(message, "assistant", where)
            case ThinkingBlock():
                _check_role(message, "assistant", where)
                turns.think(block.thinking)
    if texts:
        turns.say(message.role, "\n".join(texts))
    for place, call in _calls(message.content):
        arguments = json.dumps(call.input, ensure_ascii=False)
        turns.call(call.id, call.name, arguments, param=f"{path}.content[{place}].input")


def _calls(blocks: list[Any]) -> Iterator[tuple[int, ToolUseBlock]]:
    yield from ((place, block) for place, block in enumerate(blocks) if isinstance(block, ToolUseBlock))


def _check_role(message: MessageParam, role: str, where: str) -> None:
    if message.role != role:
        raise wrong(where, f"only a message of the role {role} has such a block")
