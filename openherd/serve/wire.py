"""Frames between the front and a worker: four bytes of length, most significant first, then JSON.

Never pickle: what comes from the other process is data, even if that process was taken over.

To the worker: `{"op": "start", ...}` once, then
    generate    id, prompts, params, schema, adapter      answer these prompts; where they are conversations also
                tools, tool_choice, parallel_tool_calls   OpenAI's function tools or null; "none", "auto", "required" or
                                                          {"name": NAME}; whether one answer may make several calls
    embed       id, texts, adapter                        a vector of each text
    cancel      id                                        nobody waits for it any more
    tokenize, detokenize, render, count                   id and their arguments
To the front: `{"ready": {...}}` or `{"failed": {...}}` once, then `{"events": [...], "used": [...], "stats": {...}}`.
An entry of `used` is a request's id, and how many tokens of its prompts and of its answers have been computed so far.
An event has the request's id and a type:
    accepted    prompt_tokens, seed                       it can be run, and is queued
    delta       choice, text, tokens                      more of one choice; tokens where log-probabilities were asked
                reasoning, tool_calls                     only where there are: text of the thinking section, and a list
                                                          of {"index", "id"?, "name"?, "arguments"}, id and name in a
                                                          call's first, while the pieces of its arguments join to JSON
    end         choice, finish_reason, stop, its tokens   the last event of that choice; stop: the string that ended it;
                                                          completion_tokens, and of them reasoning_tokens; cached_tokens
    embedding   index, vector                             of one text: little-endian float32 in base64
    value       value                                     what tokenize and its like return
    error       status, message, param, code              the last event of the request
    cancelled   prompt_tokens, completion_tokens          the answer to each cancel: what had been computed for it
Where models share memory, a worker first says `{"needs": BYTES}` and loads when it is told `{"op": "load"}`.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from threading import Lock
from typing import Any, TypeAlias

from openherd.errors import EngineError

Frame: TypeAlias = dict[str, Any]
Event: TypeAlias = dict[str, Any]

# Far above what a request's body limit or a step's events make: more means that the other side is broken.
MAX_FRAME_BYTES = 2**30

_LENGTH = struct.Struct(">I")


def pack(frame: Frame) -> bytes:
    body = json.dumps(frame, separators=(",", ":")).encode()
    return _LENGTH.pack(len(body)) + body


class Link:
    """The worker's end: blocking, one reader, any number of writers."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._sending = Lock()

    def send(self, frame: Frame) -> None:
        """Raises OSError when the front is gone."""
        data = pack(frame)
        with self._sending:
            self._socket.sendall(data)

    def receive(self) -> Frame | None:
        """The next frame; None when the front is gone."""
        head = self._read(_LENGTH.size)
        if head is None:
            return None
        body = self._read(_checked(head))
        return None if body is None else _parsed(body)

    def _read(self, size: int) -> bytes | None:
        data = bytearray()
        while len(data) < size:
            try:
                piece = self._socket.recv(min(size - len(data), 2**20))
            except OSError:
                return None
            if not piece:
                return None
            data += piece
        return bytes(data)


async def receive(reader: asyncio.StreamReader) -> Frame | None:
    """The front's end: the next frame; None when the worker is gone. Raises `EngineError` for what is no frame."""
    try:
        return _parsed(await reader.readexactly(_checked(await reader.readexactly(_LENGTH.size))))
    except (asyncio.IncompleteReadError, OSError):
        return None


def _checked(head: bytes) -> int:
    size: int = _LENGTH.unpack(head)[0]
    if size > MAX_FRAME_BYTES:
        raise EngineError(f"a frame of {size} bytes between front and worker")
    return size


def _parsed(body: bytes) -> Frame:
    try:
        frame = json.loads(body)
    except (ValueError, RecursionError):
        raise EngineError("a frame between front and worker is not JSON") from None
    if not isinstance(frame, dict):
        raise EngineError("a frame between front and worker is not an object")
    return frame
