"""ChatTemplate: a conversation to spans, by the Jinja template a model's file carries.

The text equals what Hugging Face's `apply_chat_template` renders; beside it stands who wrote each stretch, so that
only the template's own words can become control tokens. Templates come from files and never from requests; they are
hostile all the same, see `sandbox` and `budget`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self

from jinja2 import Template

from openherd.errors import TemplateError
from openherd.messages import Message, Origin, Span
from openherd.tokenizers.budget import SECONDS, emit, within
from openherd.tokenizers.provenance import TEMPLATE, UNKNOWN, Source, TracedStr, concat, runs_of, source_of
from openherd.tokenizers.sandbox import TemplateEnvironment

if TYPE_CHECKING:
    from openherd.tokenizers.tokenizer import Tokenizer

_MAX_SOURCE = 2**16  # characters; the longest known template of a released model has about 20,000
_CHARS_PER_MESSAGE = 500  # what a message costs the template beyond its text
_ORIGINS = {
    "system": Origin.SYSTEM,
    "developer": Origin.SYSTEM,
    "user": Origin.USER,
    "assistant": Origin.ASSISTANT,
    "tool": Origin.TOOL,
    "ipython": Origin.TOOL,
}
_PYTHON_COMPILE = 0.06  # seconds of the budget kept back for Python's compiler: the longest programs take 0.08
_LEAST_RENDER = 0.05  # seconds that compiling leaves for rendering: a pause then must not spoil every later render
_MAX_REASON = 300  # characters of a template's own words in an error
_DATE_FORMAT = re.compile(r"(?:[^%]|%-?[A-Za-z%]){0,200}")


class ChatTemplate:
    """One compiled template. Safe to share between threads."""

    def __init__(self, source: str | None, *, bos_token: str = "", eos_token: str = "") -> None:
        """Raises `TemplateError` for a missing template and for one that Jinja or the sandbox refuses."""
        if not source:
            raise TemplateError(
                "the model's file has no chat template, and a guess would garble the conversation",
                hint="name one with --template FILE, or --template chatml, llama-2 or llama-3",
            )
        if len(source) > _MAX_SOURCE:
            raise TemplateError(f"the chat template has {len(source)} characters; the most is {_MAX_SOURCE}")
        self.source = source
        self._globals = {
            "bos_token": TracedStr.of(bos_token, TEMPLATE),
            "eos_token": TracedStr.of(eos_token, TEMPLATE),
            "raise_exception": _raise_exception,
        }
        start = time.thread_time()
        with _refusals("does not compile"):
            self._template: Template = within(
                SECONDS - _PYTHON_COMPILE, lambda: TemplateEnvironment().from_string(source)
            )
        self._render_seconds = max(SECONDS - (time.thread_time() - start), _LEAST_RENDER)

    @classmethod
    def of(cls, source: str | None, tokenizer: Tokenizer) -> Self:
        """The template of a model with this tokenizer, whose first and last tokens it may write. Raises as above."""

        def text(token_id: int | None) -> str:
            return "" if token_id is None else tokenizer.token_bytes(token_id).decode("utf-8", "replace")

        return cls(source, bos_token=text(tokenizer.bos_id), eos_token=text(tokenizer.eos_id))

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        now: datetime | None = None,
    ) -> list[Span]:
        """The conversation as spans, neighbours of one origin joined.

        `tools`: JSON schemas of functions the model may call. `add_generation_prompt`: end where the assistant is
        to speak. `now`: what the template takes for the present; None: the clock.
        """
        given = [_message(message, index) for index, message in enumerate(messages)]
        variables = self._globals | {
            "messages": given,
            "tools": None if tools is None else [_sourced(tool, Source(Origin.TOOL)) for tool in tools],
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
            "strftime_now": lambda format: _date(now or datetime.now(), format),
        }
        size = _characters(given) + _characters(variables["tools"]) + _CHARS_PER_MESSAGE * len(given)
        with _refusals("cannot render this conversation"):
            return within(self._render_seconds, lambda: _spans(self._run(variables)), input_chars=size)

    def _run(self, variables: dict[str, Any]) -> TracedStr:
        pieces: list[str] = []
        for piece in self._template.root_render_func(self._template.new_context(variables)):
            emit(len(piece))
            pieces.append(piece)
        return concat(pieces)


@contextmanager
def _refusals(what: str) -> Iterator[None]:
    """Whatever a template makes Jinja or a built-in type raise is the template's fault, told in one line."""
    try:
        yield
    except TemplateError:
        raise
    except RecursionError as error:
        raise TemplateError(f"the chat template {what}: it calls itself without end") from error
    except Exception as error:  # a template is a program: it can raise anything
        reason = " ".join(str(error).split())[:_MAX_REASON] or type(error).__name__
        raise TemplateError(
            f"the chat template {what}: {reason}", hint="name another with --template FILE|NAME"
        ) from error


def _message(message: Message, index: int) -> dict[str, Any]:
    """The message as templates know it: a dictionary whose every string is traced to it.

    A known role is one of a few fixed words and counts as the template's own; any other is text like the rest.
    """
    source = Source(_ORIGINS.get(message.role, Origin.USER), index)
    known = message.role in _ORIGINS
    fields: dict[str, Any] = {
        "role": TracedStr.of(message.role, TEMPLATE if known else source),
        "content": TracedStr.of(message.content, source),
    }
    if message.name is not None:
        fields["name"] = TracedStr.of(message.name, source)
    if message.reasoning_content is not None:
        fields["reasoning_content"] = TracedStr.of(message.reasoning_content, source)
    if message.tool_calls:
        fields["tool_calls"] = _sourced(message.tool_calls, source)
    if message.tool_call_id is not None:
        fields["tool_call_id"] = TracedStr.of(message.tool_call_id, source)
    return fields


def _sourced(value: Any, source: Source) -> Any:
    """A JSON value with every string, keys included, traced to `source`."""
    if isinstance(value, str):
        return TracedStr.of(value, source)
    if isinstance(value, Mapping):
        return {_sourced(key, source): _sourced(item, source) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_sourced(item, source) for item in value]
    if value is None or isinstance(value, (bool, int, float)):
        return value
    raise TemplateError(f"a tool is described by JSON values; {type(value).__name__} is not one")


def _characters(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(_characters(key) + _characters(item) for key, item in value.items())
    return sum(map(_characters, value)) if isinstance(value, list) else 0


def _spans(text: TracedStr) -> list[Span]:
    plain = "".join((text,))  # without the sources, so that slices below are cheap
    spans: list[Span] = []
    start = 0
    for length, source in runs_of(text):
        if length:
            spans.append(Span(plain[start : start + length], source.origin, source.message_index))
        start += length
    return spans


def _raise_exception(message: Any) -> None:
    raise TemplateError(f"the chat template refuses this conversation: {str(message)[:_MAX_REASON]}")


def _date(now: datetime, pattern: str) -> str:
    if not _DATE_FORMAT.fullmatch(pattern):
        raise TemplateError("the chat template asks for the date in a format that is too long or has a width")
    return TracedStr.of(now.strftime(pattern), source_of(pattern) or UNKNOWN)
