"""What a caller may ask with, and how it becomes token ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeAlias, TypeGuard, cast

from openherd.errors import InputError
from openherd.llm.loading import LoadedModel
from openherd.llm.tool_prompts import for_template
from openherd.messages import Message, Origin, Span, ToolCall
from openherd.parsers import THINK_OPEN

# Plain text, token ids, or a conversation.
Conversation: TypeAlias = Sequence[Message | Mapping[str, Any]]
Prompt: TypeAlias = str | Sequence[int] | Conversation


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    ids: tuple[int, ...]
    spans: tuple[Span, ...]  # what a guard reads
    is_conversation: bool
    has_results: bool = False  # of functions that were called

    @property
    def is_thinking(self) -> bool:
        """Whether the template ends by opening a thinking section for the model to go on in."""
        last = self.spans[-1] if self.spans else None
        return bool(last and last.origin is Origin.TEMPLATE and last.text.rstrip().endswith(THINK_OPEN))


def encode(
    model: LoadedModel, prompt: Prompt, *, special: bool = False, tools: Sequence[Mapping[str, Any]] | None = None
) -> EncodedPrompt:
    """Ids and spans of a prompt. A conversation goes through the chat template.

    `special`: control tokens written in a text prompt become control ids; else they stay text. An empty text becomes
    the beginning-of-sequence token. Raises `ContextLengthError` before working on a text that cannot fit,
    `TemplateError`, or `InputError` for what is no prompt.
    """
    tokenizer = model.tokenizer
    limit = model.engine.context
    is_conversation = not isinstance(prompt, str) and not is_token_ids(prompt)
    has_results = False
    check_tools_have_effect(prompt, tools)
    if isinstance(prompt, str):
        ids = tokenizer.encode(prompt, special=special, max_tokens=limit)
        spans = [Span(prompt, Origin.USER)]
    elif is_token_ids(prompt):
        _check_ids(prompt, tokenizer.vocab_size)
        ids = list(prompt)
        spans = [Span(tokenizer.decode(ids, skip_special=False), Origin.USER)]
    else:
        conversation = messages(cast(Conversation, prompt))
        has_results = any(message.role == "tool" for message in conversation)
        given, offered = for_template(conversation, tools, model.format)
        spans = model.template.render(given, tools=offered)
        ids = tokenizer.encode_spans(spans, max_tokens=limit)
    if not ids:
        if tokenizer.bos_id is None:
            raise InputError("the prompt is empty, and this model has no token to begin with", hint="Give a prompt.")
        ids = [tokenizer.bos_id]
    return EncodedPrompt(tuple(ids), tuple(spans), is_conversation, has_results)


def check_tools_have_effect(prompt: Prompt, tools: Sequence[Mapping[str, Any]] | None) -> None:
    """Raise `InputError` where nobody would be told of them."""
    if tools and (isinstance(prompt, str) or is_token_ids(prompt)):
        raise InputError("tools have no effect on a prompt of text", hint="Ask with a list of messages.")


def as_prompts(prompts: Prompt | Sequence[Prompt]) -> list[Prompt]:
    """One prompt or a list of them, as a list."""
    if isinstance(prompts, str) or not prompts:
        return [prompts] if isinstance(prompts, str) else []
    if isinstance(prompts[0], (int, Message, Mapping)):
        return [cast(Prompt, prompts)]
    return list(cast(Sequence[Prompt], prompts))


def is_token_ids(prompt: Prompt) -> TypeGuard[Sequence[int]]:
    return not prompt or isinstance(prompt[0], int)


def messages(conversation: Conversation) -> list[Message]:
    """Messages from messages or from mappings with their keys. Raises `InputError` for anything else."""
    return [message if isinstance(message, Message) else _from_mapping(message) for message in conversation]


_MESSAGE_KEYS = {field.name for field in fields(Message)}


def _from_mapping(message: object) -> Message:
    if not isinstance(message, Mapping):
        raise InputError(f"a message has a role and content; this one is {type(message).__name__}")
    if unknown := sorted(str(key) for key in message.keys() - _MESSAGE_KEYS):
        raise InputError(f"a message has no key {unknown[0]!r}; the keys are {', '.join(sorted(_MESSAGE_KEYS))}")
    values = {"content": "", **message}
    if not isinstance(values.get("role"), str) or not isinstance(values["content"], str):
        raise InputError("a message needs a role and a content that are text")
    calls = values.get("tool_calls") or ()
    values["tool_calls"] = tuple(call.document() if isinstance(call, ToolCall) else call for call in calls)
    return Message(**values)


def _check_ids(ids: Sequence[int], vocab_size: int) -> None:
    for token_id in ids:
        if not isinstance(token_id, int) or isinstance(token_id, bool) or not 0 <= token_id < vocab_size:
            raise InputError(f"{token_id!r} is not a token id; this model's are 0 to {vocab_size - 1}")
