"""Transcripts: a conversation as JSONL, which can be loaded again, or as Markdown, for readers.

JSONL: a header line `{"openherd": "transcript", "version": 1, "model", "saved"}`, then one `{"role", "content"}` a
line: at most one system message, then user and assistant in turn.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from openherd.errors import FormatError, HerdError, InputError
from openherd.messages import Message

MAX_BYTES = 64 << 20
_HEADER = {"openherd": "transcript", "version": 1}
_SPEAKERS = {"system": "System", "user": "You", "assistant": "Model"}


def save(path: Path, messages: Sequence[Message], model: str) -> None:
    """Write a transcript, whole or not at all; the suffix says which kind. Raises InputError or HerdError."""
    saved = datetime.now(UTC).isoformat(timespec="seconds")
    match path.suffix.lower():
        case ".jsonl":
            text = _as_jsonl(messages, model, saved)
        case ".md":
            text = _as_markdown(messages, model, saved)
        case other:
            raise InputError(
                f"{path} ends in {other!r}, which says nothing about the kind of transcript",
                hint="end it in .jsonl (can be loaded again) or .md (for readers)",
            )
    _write(path, text)


def load(path: Path) -> list[Message]:
    """The messages of a JSONL transcript. Raises FormatError, which names the line, or InputError."""
    if path.suffix.lower() == ".md":
        raise InputError(f"{path} is a transcript for readers; load the .jsonl", hint="/save FILE.jsonl writes one")
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
    if len(data) > MAX_BYTES:
        raise FormatError(f"{path} is longer than {MAX_BYTES >> 20} MiB, the most that a transcript may have")
    try:
        lines = data.decode().split("\n")
    except UnicodeDecodeError as error:
        raise FormatError(f"{path} is not UTF-8 text (byte {error.start})") from None
    header = _object(lines[0], path, 1)
    if any(header.get(key) != value for key, value in _HEADER.items()):
        raise FormatError(f"{path} is not a transcript of herd chat, version 1", hint="/save FILE.jsonl writes one")
    numbered = [(number, line) for number, line in enumerate(lines[1:], 2) if line.strip()]
    messages: list[Message] = []
    for number, line in numbered:
        messages.append(_message(_object(line, path, number), messages, path, number))
    if messages and messages[-1].role == "user":
        raise FormatError(f"{path}, line {numbered[-1][0]}: the last message has no answer; the file may be cut")
    return messages


def _as_jsonl(messages: Sequence[Message], model: str, saved: str) -> str:
    header = {**_HEADER, "model": model, "saved": saved}
    documents = [header, *({"role": m.role, "content": m.content} for m in messages)]
    return "".join(json.dumps(document, ensure_ascii=False) + "\n" for document in documents)


def _as_markdown(messages: Sequence[Message], model: str, saved: str) -> str:
    parts = [f"# Conversation with {model}\n\nSaved {saved}.\n"]
    parts += [f"## {_SPEAKERS[m.role]}\n\n{m.content.strip()}\n" for m in messages]
    return "\n".join(parts)


def _write(path: Path, text: str) -> None:
    try:
        with NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, prefix=".herd-", delete=False) as file:
            temporary = Path(file.name)
            try:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
                temporary.replace(path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
    except (OSError, ValueError) as error:
        raise HerdError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}") from None


def _object(line: str, path: Path, number: int) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        raise FormatError(f"{path}, line {number}: not a JSON object") from None
    if not isinstance(value, dict):
        raise FormatError(f"{path}, line {number}: not a JSON object")
    return value


def _message(value: dict[str, Any], before: Sequence[Message], path: Path, number: int) -> Message:
    if value.keys() != {"role", "content"} or not isinstance(value["content"], str):
        raise FormatError(f"{path}, line {number}: a message has exactly a role and a content, which is text")
    after = before[-1].role if before else None
    expected = {None: ["system", "user"], "user": ["assistant"]}.get(after, ["user"])
    if value["role"] not in expected:
        raise FormatError(f"{path}, line {number}: the role must be {' or '.join(expected)} here")
    content = value["content"].encode("utf-8", "replace").decode()  # JSON can spell half a surrogate pair
    return Message(value["role"], content)
