"""Prompts with answers that can be checked: what reward objectives learn from.

A file of them is JSONL (or a JSON list, or parquet), each row an object with

    prompt     text, which is asked as the user's one message (GSM8K calls it question, which is read too); or
    messages   a conversation of {role, content} that ends with the user's turn
    answer     what is expected, as the reward named in the recipe reads it (see `rewards.py`)

Other keys are not used. Without a chat template a `prompt` is plain text that the model goes on from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from openherd.errors import ContextLengthError, InputError, OptionError, TemplateError
from openherd.messages import Message
from openherd.store.digest import sha256_of
from openherd.tokenizers import ChatTemplate, Tokenizer
from openherd.train.objectives.rewards import REWARDS, Check
from openherd.train.rows import RowError
from openherd.train.sources import find_files, read_values

_QUESTIONS = ("prompt", "question")
_ROLES = ("system", "user", "assistant")


@dataclass(frozen=True, slots=True)
class CheckedPrompt:
    ids: tuple[int, ...]  # as inference would give them to the model
    check: Check
    where: str  # FILE:LINE


@dataclass(frozen=True, slots=True)
class Prompts:
    """All prompts of some files, in their order."""

    items: tuple[CheckedPrompt, ...]
    fingerprint: str  # of the files' bytes, the reward's name and the ids

    def __len__(self) -> int:
        return len(self.items)


def read_prompts(
    paths: Sequence[Path], reward: str, tokenizer: Tokenizer, template: ChatTemplate | None, *, max_tokens: int
) -> Prompts:
    """Raises `OptionError` for an unknown reward, `RowError` (FILE:LINE, what is expected) for a malformed row, and
    `InputError` for files without any. `max_tokens`: a longer prompt is refused, never cut."""
    if reward not in REWARDS:
        raise OptionError(f"grpo.reward must be one of {', '.join(REWARDS)}, not {reward!r}")
    digest = hashlib.sha256(reward.encode())
    items: list[CheckedPrompt] = []
    encode = _Encoder(tokenizer, template, max_tokens)
    for file in find_files(list(paths)):
        digest.update(sha256_of(file).encode())
        items += [_prompt(value, where, encode, REWARDS[reward]) for where, value in read_values(file)]
    if not items:
        raise InputError("the files of grpo.prompts hold no prompt")
    for item in items:
        digest.update(repr(item.ids).encode())
    return Prompts(tuple(items), digest.hexdigest())


def _prompt(value: object, where: str, encode: _Encoder, reward: Callable[[object], Check]) -> CheckedPrompt:
    if isinstance(value, RowError):
        raise value
    if not isinstance(value, dict) or "answer" not in value:
        raise RowError(f"{where}: a prompt's row must be an object with prompt or messages, and answer")
    try:
        return CheckedPrompt(encode(_question(value, where), where), reward(value["answer"]), where)
    except RowError:
        raise
    except InputError as why:  # of the expected answer, or of the prompt's length or form
        raise RowError(f"{where}: {Exception.__str__(why)}", hint=why.hint) from None


def _question(value: dict[str, object], where: str) -> str | list[Message]:
    if "messages" in value:
        return _messages(value["messages"], where)
    text = next((value[key] for key in _QUESTIONS if key in value), None)
    if not isinstance(text, str) or not text.strip():
        raise RowError(f"{where}: prompt must be text that is not empty, or give messages")
    return text


def _messages(value: object, where: str) -> list[Message]:
    if not isinstance(value, list) or not value:
        raise RowError(f"{where}: messages must be a list of objects with role and content")
    for index, message in enumerate(value):
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            raise RowError(f"{where}: messages[{index}] must be an object with role and content, both text")
        if message.get("role") not in _ROLES:
            raise RowError(f"{where}: messages[{index}]: role must be one of {', '.join(_ROLES)}")
    if value[-1]["role"] != "user":
        raise RowError(f"{where}: messages must end with the user's turn, which is to be answered")
    return [Message(message["role"], message["content"]) for message in value]


class _Encoder:
    """From a question to ids, as inference has them."""

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate | None, max_tokens: int) -> None:
        self._tokenizer, self._template, self._max_tokens = tokenizer, template, max_tokens

    def __call__(self, question: str | list[Message], where: str) -> tuple[int, ...]:
        if self._template is not None:
            messages = [Message("user", question)] if isinstance(question, str) else question
            spans = self._template.render(messages)
            ids = self._tokenizer.encode_spans(spans, max_tokens=self._max_tokens)
        elif isinstance(question, str):
            ids = self._tokenizer.encode(question, max_tokens=self._max_tokens)
        else:
            raise TemplateError("a conversation needs a chat template, and the model has none; name one")
        if not 0 < len(ids) <= self._max_tokens:
            raise ContextLengthError(f"the prompt has {len(ids)} tokens; from 1 to {self._max_tokens} fit")
        return tuple(ids)
