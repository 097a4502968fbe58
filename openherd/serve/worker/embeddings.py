"""Texts that become vectors, inside the worker: one request of many texts, a few of them in the engine at a time."""

from __future__ import annotations

import base64
from collections import deque
from dataclasses import dataclass, field

from openherd.engine.sequence import Request
from openherd.errors import ContextLengthError, EngineError, InputError
from openherd.llm.driver import Driver
from openherd.llm.embedding import MeanState, Text, prepare_embedding
from openherd.llm.loading import LoadedModel
from openherd.serve.wire import Event, Frame
from openherd.serve.worker.jobs import MAX_CHARACTERS_PER_TOKEN
from openherd.serve.worker.refusals import error_event

# Enough to fill the engine's batches; a request of two thousand texts does not stand before everybody else's.
MAX_AT_ONCE = 16
_NOTHING_DRAWN = {"completion_tokens": 0, "cached_tokens": 0, "reasoning_tokens": 0}


@dataclass(slots=True)
class EmbeddingJob:
    """A request that can be run."""

    id: int
    waiting: deque[tuple[Request, MeanState]]
    num_texts: int
    prompt_tokens: int
    has_failed: bool = False
    _driver: Driver | None = None
    _running: dict[int, MeanState] = field(default_factory=dict)  # by the text's place
    _num_embedded: int = 0  # tokens of the texts that have ended

    @property
    def answers(self) -> list[MeanState]:
        """Those in the engine."""
        return list(self._running.values())

    @property
    def is_done(self) -> bool:
        return self.has_failed or not (self.waiting or self._running)

    def submit(self, driver: Driver) -> None:
        self._driver = driver
        self._top_up()

    def accepted(self) -> Event:
        return {"id": self.id, "type": "accepted", "prompt_tokens": self.prompt_tokens, "seed": 0}

    def used(self, driver: Driver) -> tuple[int, int]:
        """Tokens computed so far, and none drawn."""
        return self._num_embedded + sum(state.num_positions for state in self._running.values()), 0

    def events(self) -> list[Event]:
        """The vectors that are there since the last call."""
        ended = [place for place, state in self._running.items() if state.finish_reason is not None]
        events: list[Event] = []
        for place in ended:
            state = self._running.pop(place)
            self._num_embedded += state.num_positions
            try:
                data = state.vector().astype("<f4").tobytes()
            except EngineError:
                self.has_failed = True
                return [{"id": self.id, **error_event(500, "a text could not be embedded")}]
            vector = base64.b64encode(data).decode()
            events.append({"id": self.id, "type": "embedding", "index": place, "vector": vector})
        self._top_up()
        if self.is_done:
            end = {"choice": 0, "finish_reason": "stop", "stop": None, **_NOTHING_DRAWN}
            events.append({"id": self.id, "type": "end", **end})
        return events

    def _top_up(self) -> None:
        assert self._driver is not None
        while self.waiting and len(self._running) < MAX_AT_ONCE:
            place = self.num_texts - len(self.waiting)
            request, state = self.waiting.popleft()
            self._driver.submit([(request, state)])
            self._running[place] = state


def prepare_embeddings(model: LoadedModel, frame: Frame) -> EmbeddingJob:
    """From an `embed` frame. Raises `InputError`s for what cannot be run, which name the text."""
    salt = bytes.fromhex(frame["salt"])
    prepared: deque[tuple[Request, MeanState]] = deque()
    for place, text in enumerate(frame["texts"]):
        try:
            _check_length(model, text)
            prepared.append(prepare_embedding(model, text, adapter=frame["adapter"], salt=salt))
        except InputError as error:
            raise type(error)(f"input[{place}]: {Exception.__str__(error)}", hint=error.hint) from None
    num_tokens = sum(len(request.prompt_ids) for request, _ in prepared)
    return EmbeddingJob(frame["id"], prepared, len(prepared), num_tokens)


def _check_length(model: LoadedModel, text: Text) -> None:
    """Before it is tokenized."""
    if isinstance(text, str) and len(text) > MAX_CHARACTERS_PER_TOKEN * model.engine.context:
        raise ContextLengthError(
            f"the text has {len(text)} characters, far more than fit the context of {model.engine.context} tokens"
        )
