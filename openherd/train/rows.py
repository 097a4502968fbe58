"""Rows of training data: what one JSON object of a file teaches, in the forms that people publish.

    text                     Text: every token is learnt
    messages                 Conversation of {role, content}: the assistant's turns are learnt; perhaps with tools
    conversations            the same of {from, value}, as ShareGPT has it; perhaps with tools and system
    instruction, output      Conversation of a question and its answer (Alpaca); perhaps with input, system, history
    prompt, completion       Completion, both text: what follows the prompt is learnt, and no template is applied
    chosen, rejected         Preference: two ends of one conversation; perhaps with prompt

Other keys are not used; `unused_keys` names them, so that a person can be told. Not covered: images, and several
answers of unequal weight.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from openherd.errors import InputError
from openherd.messages import Message

_SHAREGPT_ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "tool": "tool",
    "observation": "tool",
    "function_response": "tool",
}
_ROLES = ("system", "developer", "user", "assistant", "tool", "ipython")


@dataclass(frozen=True, slots=True)
class Text:
    text: str


@dataclass(frozen=True, slots=True)
class Completion:
    """Plain text, of which the second part is learnt."""

    prompt: str
    completion: str


@dataclass(frozen=True, slots=True)
class Conversation:
    messages: tuple[Message, ...]  # at least one of the assistant's
    tools: tuple[dict[str, Any], ...] = ()  # functions the model may call, as the chat template takes them


@dataclass(frozen=True, slots=True)
class Preference:
    """`prompt` followed by the better and by the worse answer; each answer ends with the assistant's turn."""

    prompt: tuple[Message, ...]
    chosen: tuple[Message, ...]
    rejected: tuple[Message, ...]


Row: TypeAlias = Text | Completion | Conversation | Preference


class RowError(InputError):
    """A row that cannot be learnt from. The message begins with the file and the line."""


def parse_row(value: object, where: str) -> Row:
    """The row that a JSON value spells; `where` is "FILE:LINE". Raises RowError saying what is expected there."""
    if not isinstance(value, dict):
        raise RowError(f"{where}: a row must be a JSON object, not {_kind(value)}")
    form = next((form for form in _FORMS if form.keys <= value.keys()), None)
    if form is None:
        found = ", ".join(sorted(map(str, value))[:6]) or "no key"
        raise RowError(
            f"{where}: a row needs {', or '.join(' and '.join(sorted(form.keys)) for form in _FORMS)}; it has {found}",
            hint="say what its keys mean with --rename, such as --rename question=instruction --rename answer=output",
        )
    return form.read(value, where)


def unused_keys(value: Mapping[str, object]) -> frozenset[str]:
    """Keys of a row that take no part in what it teaches."""
    form = next(form for form in _FORMS if form.keys <= value.keys())
    return frozenset(value.keys() - form.keys - form.optional)


@dataclass(frozen=True, slots=True)
class _Form:
    keys: frozenset[str]
    optional: frozenset[str]
    read: Callable[[dict[str, Any], str], Row]


def _text(value: dict[str, Any], where: str) -> Row:
    return Text(_string(value["text"], "text", where))


def _completion(value: dict[str, Any], where: str) -> Row:
    prompt, completion = value["prompt"], value["completion"]
    if isinstance(prompt, list) and isinstance(completion, list):
        return _conversation_of(_messages(prompt, "prompt", where) + _messages(completion, "completion", where), where)
    return Completion(_string(prompt, "prompt", where), _string(completion, "completion", where))


def _openai(value: dict[str, Any], where: str) -> Row:
    return _conversation_of(_messages(value["messages"], "messages", where), where, _tools(value, where))


def _sharegpt(value: dict[str, Any], where: str) -> Row:
    turns = value["conversations"]
    if not isinstance(turns, list):
        raise RowError(f"{where}: conversations must be a list of turns, not {_kind(turns)}")
    messages = [_sharegpt_turn(turn, f"conversations[{index}]", where) for index, turn in enumerate(turns)]
    system = value.get("system")
    if system:
        messages.insert(0, Message("system", _string(system, "system", where)))
    return _conversation_of(tuple(messages), where, _tools(value, where))


def _sharegpt_turn(turn: object, at: str, where: str) -> Message:
    if not isinstance(turn, dict) or not {"from", "value"} <= turn.keys():
        raise RowError(f"{where}: {at} needs the keys from and value")
    speaker = turn["from"]
    if speaker == "function_call":
        return _sharegpt_call(turn["value"], at, where)
    if not isinstance(speaker, str) or speaker not in _SHAREGPT_ROLES:
        raise RowError(
            f"{where}: {at}: from must be one of {', '.join(_SHAREGPT_ROLES)}, function_call, not {_shown(speaker)}"
        )
    return Message(_SHAREGPT_ROLES[speaker], _string(turn["value"], f"{at}: value", where))


def _sharegpt_call(value: object, at: str, where: str) -> Message:
    """The assistant's call of one function, or a list of them: JSON in text, as LLaMA-Factory's data has it."""
    try:
        calls = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        calls = None
    calls = calls if isinstance(calls, list) else [calls]
    if not calls or not all(isinstance(c, dict) and isinstance(c.get("name"), str) and "arguments" in c for c in calls):
        raise RowError(f"{where}: {at}: a function_call must be JSON with name and arguments")
    functions = [{"name": call["name"], "arguments": call["arguments"]} for call in calls]
    return Message("assistant", "", tool_calls=tuple({"type": "function", "function": f} for f in functions))


def _tools(value: dict[str, Any], where: str) -> tuple[dict[str, Any], ...]:
    """Functions offered, as a list or as JSON in text; one that is not wrapped as OpenAI's API does is wrapped."""
    tools = value.get("tools") or []
    try:
        tools = json.loads(tools) if isinstance(tools, str) else tools
    except (ValueError, RecursionError):
        tools = None
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise RowError(f"{where}: tools must be a list of objects, or such a list as JSON in text")
    return tuple(tool if "function" in tool else {"type": "function", "function": tool} for tool in tools)


def _alpaca(value: dict[str, Any], where: str) -> Row:
    messages: list[Message] = []
    if value.get("system"):
        messages.append(Message("system", _string(value["system"], "system", where)))
    history = value.get("history") or []
    if not isinstance(history, list):
        raise RowError(f"{where}: history must be a list of pairs, not {_kind(history)}")
    for index, pair in enumerate(history):
        if not isinstance(pair, list) or len(pair) != 2:
            raise RowError(f"{where}: history[{index}] must be a pair of question and answer")
        messages.append(Message("user", _string(pair[0], f"history[{index}][0]", where)))
        messages.append(Message("assistant", _string(pair[1], f"history[{index}][1]", where)))
    question = _string(value["instruction"], "instruction", where)
    if value.get("input"):
        question += "\n\n" + _string(value["input"], "input", where)
    answer = Message("assistant", _string(value["output"], "output", where))
    return _conversation_of((*messages, Message("user", question), answer), where)


def _preference(value: dict[str, Any], where: str) -> Row:
    chosen, rejected = (_answer(value[key], key, where) for key in ("chosen", "rejected"))
    if "prompt" in value:
        prompt = _prompt(value["prompt"], where)
    elif "instruction" in value:
        question = _string(value["instruction"], "instruction", where)
        if value.get("input"):
            question += "\n\n" + _string(value["input"], "input", where)
        prompt = (Message("user", question),)
    else:  # both hold the whole conversation: what they begin with alike is the prompt
        length = 0
        while length < min(len(chosen), len(rejected)) and chosen[length] == rejected[length]:
            length += 1
        prompt, chosen, rejected = chosen[:length], chosen[length:], rejected[length:]
    for key, answer in (("chosen", chosen), ("rejected", rejected)):
        if not answer or answer[-1].role != "assistant":
            raise RowError(f"{where}: {key} must end with the assistant's turn")
    if not prompt:
        raise RowError(f"{where}: chosen and rejected share no prompt; give one under prompt")
    if chosen == rejected:
        raise RowError(f"{where}: chosen and rejected are the same, so nothing can be preferred")
    return Preference(prompt, chosen, rejected)


def _prompt(value: object, where: str) -> tuple[Message, ...]:
    return (Message("user", value),) if isinstance(value, str) else _messages(value, "prompt", where)


def _answer(value: object, key: str, where: str) -> tuple[Message, ...]:
    if isinstance(value, str):
        return (Message("assistant", value),)
    if isinstance(value, dict):
        value = [value]
    return _messages(value, key, where)


_FORMS = (
    _Form(frozenset({"messages"}), frozenset({"tools"}), _openai),
    _Form(frozenset({"conversations"}), frozenset({"system", "tools"}), _sharegpt),
    _Form(frozenset({"chosen", "rejected"}), frozenset({"prompt", "instruction", "input"}), _preference),
    _Form(frozenset({"instruction", "output"}), frozenset({"input", "system", "history"}), _alpaca),
    _Form(frozenset({"prompt", "completion"}), frozenset(), _completion),
    _Form(frozenset({"text"}), frozenset(), _text),
)


def _conversation_of(messages: tuple[Message, ...], where: str, tools: tuple[dict[str, Any], ...] = ()) -> Conversation:
    if not any(message.role == "assistant" for message in messages):
        raise RowError(f"{where}: the conversation has no assistant's turn, so there is nothing to learn from")
    return Conversation(messages, tools)


def _messages(value: object, key: str, where: str) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        raise RowError(f"{where}: {key} must be a list of messages, not {_kind(value)}")
    return tuple(_message(item, f"{key}[{index}]", where) for index, item in enumerate(value))


def _message(value: object, at: str, where: str) -> Message:
    if not isinstance(value, dict):
        raise RowError(f"{where}: {at} must be an object with role and content, not {_kind(value)}")
    role = value.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise RowError(f"{where}: {at}: role must be one of {', '.join(_ROLES)}, not {_shown(role)}")
    calls = value.get("tool_calls") or ()
    if not isinstance(calls, (list, tuple)) or not all(isinstance(call, dict) for call in calls):
        raise RowError(f"{where}: {at}: tool_calls must be a list of objects")
    content = value.get("content")
    if content is None and calls:
        content = ""
    return Message(
        role,
        _string(content, f"{at}: content", where),
        name=_optional(value.get("name"), f"{at}: name", where),
        tool_calls=tuple(calls),
        tool_call_id=_optional(value.get("tool_call_id"), f"{at}: tool_call_id", where),
        reasoning_content=_optional(value.get("reasoning_content"), f"{at}: reasoning_content", where),
    )


def _optional(value: object, at: str, where: str) -> str | None:
    return None if value is None else _string(value, at, where)


def _string(value: object, at: str, where: str) -> str:
    if not isinstance(value, str):
        raise RowError(f"{where}: {at} must be text, not {_kind(value)}")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise RowError(f"{where}: {at} holds half of a character (a lone surrogate)")
    return value


_KINDS = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}


def _kind(value: object) -> str:
    return "nothing" if value is None else _KINDS.get(type(value), type(value).__name__)


def _shown(value: object) -> str:
    return repr(value)[:40] if isinstance(value, str) else _kind(value)
