"""A model that says what it is told to, through the interface of `openherd.llm.LLM` that the chat uses."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from openherd.errors import ContextLengthError
from openherd.messages import Completion, FinishReason, Message, Usage
from openherd.options import SamplingParams
from openherd.stats import EngineStats


@dataclass
class Piece:
    text: str
    reasoning: str = ""


@dataclass
class Script:
    """One answer. `hold`: wait for `close` after the last piece, as a long answer would go on."""

    pieces: list[str]
    finish: FinishReason = FinishReason.STOP
    hold: bool = False
    raises: BaseException | None = None


class ScriptedStream:
    def __init__(self, script: Script, num_prompt_tokens: int) -> None:
        self._script = script
        self._num_prompt_tokens = num_prompt_tokens
        self._said: list[str] = []
        self._finish: FinishReason | None = None
        self._closed = threading.Event()
        self.worker: threading.Thread | None = None

    def __iter__(self) -> Iterator[Piece]:
        self.worker = threading.current_thread()
        for piece in self._script.pieces:
            if self._closed.is_set():
                return
            self._said.append(piece)
            yield Piece(piece)
        if self._script.raises is not None:
            raise self._script.raises
        if self._script.hold:
            assert self._closed.wait(10), "nobody closed the stream"
            return
        self._finish = self._script.finish

    @property
    def closed(self) -> bool:
        return self._closed.is_set()

    @property
    def completion(self) -> Completion:
        finish = self._finish or FinishReason.ABORTED
        usage = Usage(self._num_prompt_tokens, len(self._said))
        error = "a processor raised" if finish is FinishReason.ERROR else None
        timing = {"decode_tokens_per_s": 100.0}
        return Completion("".join(self._said), (), finish, usage, seed=7, error=error, timing=timing)

    def close(self) -> None:
        self._closed.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


@dataclass
class ScriptedModel:
    """Answers with the scripts in order; a token is a word, and a prompt of `context` words does not fit."""

    scripts: list[Script]
    name: str = "scripted"
    context: int = 1000
    numerics_id: str = "test"
    stats: EngineStats = field(default_factory=EngineStats)
    asked: list[list[Message]] = field(default_factory=list)
    params: list[SamplingParams] = field(default_factory=list)
    streams: list[ScriptedStream] = field(default_factory=list)

    def stream(
        self, prompt: Sequence[Message], params: SamplingParams, *, adapter: str | None = None
    ) -> ScriptedStream:
        words = sum(len(message.content.split()) for message in prompt)
        if words >= self.context:
            raise ContextLengthError(f"the prompt has {words} tokens and the context {self.context}")
        self.asked.append(list(prompt))
        self.params.append(params)
        self.streams.append(ScriptedStream(self.scripts.pop(0), words))
        return self.streams[-1]


def saying(*answers: str) -> ScriptedModel:
    """A model that gives these answers, word by word."""
    return ScriptedModel([Script([f"{word} " for word in answer.split()]) for answer in answers])
