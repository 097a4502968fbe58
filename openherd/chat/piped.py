"""Conversation without a keyboard: each line that comes is answered, as plain text or as one JSON document."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable
from contextlib import closing
from typing import BinaryIO, TextIO

from openherd.chat.conversation import Conversation
from openherd.chat.statistics import full_notice, line
from openherd.errors import HerdError, InputError
from openherd.visible import visible

MAX_LINE_BYTES = 16 << 20


def answer_lines(
    conversation: Conversation, lines: BinaryIO, answers: TextIO, notes: TextIO, *, as_json: bool = False
) -> None:
    """Answer every line that is not blank, all in one conversation. Raises HerdErrors; what was answered stays."""
    if lines.isatty():
        print("reading lines from the terminal; answers go to standard output", file=notes, flush=True)
    for text in _texts(lines):
        with closing(conversation.ask(text)) as pieces:
            if as_json:
                for _ in pieces:
                    pass
            else:
                _write(pieces, answers)
        if as_json:
            answers.write(json.dumps(document(conversation), ensure_ascii=False) + "\n")
        answers.flush()
        print(line(conversation), file=notes)
        if conversation.context_is_full:
            raise HerdError(full_notice(conversation.model.context))


def document(conversation: Conversation) -> dict[str, object]:
    """The last answer for a program."""
    completion = conversation.last
    assert completion is not None
    return {
        "text": completion.text,
        "prompt_tokens": completion.usage.prompt_tokens,
        "completion_tokens": completion.usage.completion_tokens,
        "speculation": {"drafted": completion.usage.drafted_tokens, "accepted": completion.usage.accepted_tokens},
        "finish_reason": completion.finish_reason.value,
        "seed": completion.seed,
        "numerics_id": conversation.model.numerics_id,
        "context": conversation.model.context,
        "context_used": conversation.context_used,
        "timing": completion.timing,
    }


def _texts(lines: BinaryIO) -> Generator[str, None, None]:
    number = 0
    while data := lines.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(data) > MAX_LINE_BYTES:
            raise InputError(f"line {number} of standard input is longer than {MAX_LINE_BYTES >> 20} MiB")
        try:
            text = data.decode().strip()
        except UnicodeDecodeError:
            raise InputError(f"line {number} of standard input is not UTF-8 text") from None
        if text:
            yield text


def _write(pieces: Iterable[str], answers: TextIO) -> None:
    """The text as it comes; on a terminal control characters are shown instead of obeyed."""
    to_terminal = answers.isatty()
    for piece in pieces:
        answers.write(visible(piece) if to_terminal else piece)
        answers.flush()
    answers.write("\n")
