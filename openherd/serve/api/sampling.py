"""What requests of every API say about sampling, with the engine's own names and ranges."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from openherd.errors import OptionError
from openherd.options import SamplingParams, help_text
from openherd.serve.api.requests import ApiRequest, Label, OnlyFalse, Strict, unused
from openherd.serve.front.errors import ApiError

# A stop string costs a state for each of its characters in every request.
MAX_STOPS = 16
MAX_STOP_CHARACTERS = 256
MAX_BIASES = 1024

StopString = Annotated[str, Field(max_length=MAX_STOP_CHARACTERS)]


def _engine(name: str, **limits: Any) -> Any:
    """A field that is null unless given, with the engine's help."""
    return Field(default=None, description=help_text(SamplingParams, name), **limits)


class StreamOptions(Strict):
    include_usage: bool | None = Field(default=None, description="A last chunk with the usage.")
    include_obfuscation: OnlyFalse | None = Field(default=None, description="Padding is not added.")


class JsonSchema(Strict):
    name: str = Field(max_length=64, description="A name for the caller.")
    description: str | None = None
    schema_: dict[str, Any] | bool = Field(alias="schema", description="The JSON schema.")
    strict: bool | None = Field(default=None, description="The answer follows the schema in any case.")


class TextFormat(Strict):
    type: Literal["text"]


class JsonObjectFormat(Strict):
    type: Literal["json_object"]


class JsonSchemaFormat(Strict):
    type: Literal["json_schema"]
    json_schema: JsonSchema


ResponseFormat = Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")]


class EngineRequest(ApiRequest):
    """What every API that draws tokens takes, under the engine's own names; null is the engine's default."""

    model: str | None = Field(default=None, max_length=512, description="Which model; null: the first.")
    temperature: float | None = _engine("temperature")
    top_p: float | None = _engine("top_p")
    top_k: int | None = _engine("top_k")
    min_p: float | None = _engine("min_p")
    repetition_penalty: float | None = _engine("repetition_penalty")
    presence_penalty: float | None = _engine("presence_penalty")
    frequency_penalty: float | None = _engine("frequency_penalty")
    logit_bias: dict[str, float] | None = _engine("logit_bias", max_length=MAX_BIASES)
    seed: int | None = _engine("seed")
    stop_token_ids: list[int] | None = _engine("stop_token_ids", max_length=MAX_BIASES)
    ignore_eos: bool | None = _engine("ignore_eos")
    stream: bool | None = Field(default=None, description="Send the answer as it is made, as server-sent events.")

    def engine_params(self, names: Mapping[str, str], **given: Any) -> SamplingParams:
        """The engine's parameters, with what this API gives beside those above.

        `names`: what the API calls them, where it has other names. Raises `ApiError` that names the one out of range.
        """
        shared = (
            "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty",
            "seed", "ignore_eos",
        )  # fmt: skip
        values = {name: getattr(self, name) for name in shared} | given
        try:
            return SamplingParams(
                **{name: value for name, value in values.items() if value is not None},
                logit_bias=_biases(self.logit_bias or {}),
                stop_token_ids=tuple(self.stop_token_ids or ()),
            )
        except OptionError as error:
            message = Exception.__str__(error)
            param = message.split()[0].partition("[")[0]
            raise ApiError(400, message, param=param, code="invalid_value").renamed(names) from None


class SamplingRequest(EngineRequest):
    """What OpenAI's older APIs share."""

    max_tokens: int | None = _engine("max_tokens")
    stop: StopString | Annotated[list[StopString], Field(max_length=MAX_STOPS)] | None = _engine("stop")
    n: int | None = _engine("n")
    response_format: ResponseFormat | None = Field(
        default=None, description="text, json_object, or json_schema with the schema that the answer follows."
    )
    stream_options: StreamOptions | None = Field(
        default=None, description="include_usage: a last chunk with the usage. include_obfuscation: only false."
    )
    user: Label | None = unused(description="Nothing is stored about users.")

    @property
    def wants_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def schema_asked(self) -> dict[str, Any] | bool | None:
        """What the answer must follow; None for free text."""
        match self.response_format:
            case JsonSchemaFormat(json_schema=asked):
                return asked.schema_
            case JsonObjectFormat():
                return {"type": "object"}
        return None

    def sampling(self, **changes: Any) -> SamplingParams:
        """The engine's parameters. Raises `ApiError` that names the one out of range."""
        if self.stream_options is not None and not self.stream:
            raise ApiError(400, "stream_options needs stream: true", param="stream_options")
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        return self.engine_params({}, **{"max_tokens": self.max_tokens, "n": self.n, "stop": stop, **changes})


def _biases(by_text: dict[str, float]) -> dict[int, float]:
    for token in by_text:
        if not (token.isascii() and token.isdigit() and len(token) < 10):
            raise ApiError(400, "the keys of logit_bias must be token ids", param="logit_bias", code="invalid_value")
    return {int(token): bias for token, bias in by_text.items()}
