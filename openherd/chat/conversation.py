"""A conversation with a model: what was said, how it is answered, how much of the context it fills; no terminal."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol

from openherd.chat.interruptible import Answering, texts
from openherd.errors import EngineError, InputError
from openherd.messages import Completion, FinishReason, Message
from openherd.options import SamplingParams
from openherd.stats import EngineStats


class ChatModel(Protocol):
    """What a conversation needs of `openherd.llm.LLM`."""

    @property
    def name(self) -> str: ...
    @property
    def context(self) -> int: ...
    @property
    def numerics_id(self) -> str: ...
    @property
    def stats(self) -> EngineStats: ...
    def stream(
        self, prompt: Sequence[Message], params: SamplingParams, /, *, adapter: str | None = None
    ) -> Answering: ...


@dataclass(frozen=True, slots=True)
class Exchange:
    """One user's message and its answer, which is whole, or was stopped (`ABORTED`)."""

    asked: Message
    answered: Message
    completion: Completion | None  # None: loaded from a transcript


class Conversation:
    """A system message and exchanges. A message is recorded when its answer has at least one character."""

    def __init__(
        self, model: ChatModel, params: SamplingParams, *, system: str | None = None, adapter: str | None = None
    ) -> None:
        self.model = model
        self.params = params
        self.system = system
        self.adapter = adapter  # by its name in the model
        self.exchanges: list[Exchange] = []
        self.last: Completion | None = None  # how the last answer was made, also one that said nothing

    @property
    def messages(self) -> list[Message]:
        system = [] if self.system is None else [Message("system", self.system)]
        return system + [message for e in self.exchanges for message in (e.asked, e.answered)]

    @property
    def context_used(self) -> int:
        """Tokens that the conversation filled after its last answer; 0 when that is not known."""
        usage = self.last.usage if self.last else None
        return usage.prompt_tokens + usage.completion_tokens if usage else 0

    @property
    def context_is_full(self) -> bool:
        """The last answer ended because nothing more fits."""
        return self.last is not None and (
            self.last.finish_reason is FinishReason.LENGTH and self.context_used >= self.model.context
        )

    def ask(self, text: str) -> Generator[str, None, None]:
        """Say `text` and yield the answer as it comes. Raises HerdErrors of the model before the first piece.

        Closing the iterator, or an exception between two pieces, stops the answer; what there is of it is kept.
        """
        return self._answer(self.messages, Message("user", text))

    def regenerate(self) -> Generator[str, None, None]:
        """Answer the last message again; the earlier answer is replaced once the new one begins."""
        if not self.exchanges:
            raise InputError("there is no answer yet to make again")
        last = self.exchanges[-1]
        return self._answer(self.messages[:-2], last.asked, replaces=last)

    def undo(self) -> Exchange:
        """Take the last exchange back."""
        if not self.exchanges:
            raise InputError("there is nothing to take back")
        undone = self.exchanges.pop()
        self.last = self.exchanges[-1].completion if self.exchanges else None
        return undone

    def begin(self, exchanges: Sequence[Exchange] = ()) -> None:
        """Forget what was said, but for the system message, and go on from these exchanges."""
        self.exchanges = list(exchanges)
        self.last = None

    def _answer(
        self, before: list[Message], asked: Message, *, replaces: Exchange | None = None
    ) -> Generator[str, None, None]:
        stream = self.model.stream([*before, asked], self.params, adapter=self.adapter)
        with stream, closing(texts(stream)) as pieces:
            try:
                yield from pieces
            finally:
                pieces.close()
                self._record(asked, stream.completion, replaces)
        completion = stream.completion
        if completion.finish_reason is FinishReason.ERROR:
            raise EngineError(f"the answer ended with an error: {completion.error}")

    def _record(self, asked: Message, completion: Completion, replaces: Exchange | None) -> None:
        self.last = completion
        if not completion.text:
            return
        if replaces is not None:
            self.exchanges.remove(replaces)
        self.exchanges.append(Exchange(asked, Message("assistant", completion.text), completion))
