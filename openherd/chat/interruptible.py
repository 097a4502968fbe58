"""An answer made in another thread, so that Ctrl-C stops it between two steps of the engine and never inside one."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from queue import SimpleQueue
from threading import Thread
from types import TracebackType
from typing import Protocol, Self

from openherd.llm.aloud import ThinkingAloud
from openherd.messages import Completion


class Piece(Protocol):
    @property
    def text(self) -> str: ...
    @property
    def reasoning(self) -> str: ...


class Answering(Protocol):
    """What is needed of `openherd.llm.Stream`; `close` may be called from another thread."""

    @property
    def completion(self) -> Completion: ...
    def __iter__(self) -> Iterator[Piece]: ...
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def texts(stream: Answering) -> Generator[str, None, None]:
    """The stream's pieces of text. Python raises KeyboardInterrupt in the main thread, where this iterator waits."""
    pieces: SimpleQueue[str | BaseException | None] = SimpleQueue()
    worker = Thread(target=_drain, args=(stream, pieces), name="answer", daemon=True)
    worker.start()
    try:
        while (piece := pieces.get()) is not None:
            if isinstance(piece, BaseException):
                raise piece
            yield piece
    finally:
        stream.close()
        worker.join()


def _drain(stream: Answering, pieces: SimpleQueue[str | BaseException | None]) -> None:
    try:
        aloud = ThinkingAloud()
        for delta in stream:
            if piece := aloud.text(delta):
                pieces.put(piece)
        pieces.put(None)
    except BaseException as error:  # whatever it is, it belongs to the thread that waits
        pieces.put(error)
