"""From a model reference to an engine that is ready to run."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from openherd.checkpoints import open_adapter, open_checkpoint
from openherd.checkpoints.source import Checkpoint
from openherd.config import ModelConfig
from openherd.engine.backends import make_backend
from openherd.engine.engine import Engine
from openherd.errors import InputError
from openherd.llm.meanwhile import meanwhile
from openherd.llm.templates import template_source
from openherd.options import EngineOptions
from openherd.parsers import ModelFormat, model_format
from openherd.store.progress import Progress
from openherd.store.resolve import resolve
from openherd.tokenizers import Tokenizer

if TYPE_CHECKING:
    from openherd.tokenizers import ChatTemplate


@dataclass
class LoadedModel:
    """A model in memory: its tokenizer, its engine, and its adapters by name."""

    name: str
    path: Path
    config: ModelConfig
    tokenizer: Tokenizer
    engine: Engine
    adapters: Mapping[str, int]
    template_source: str | None  # the one that was asked for, else the model's own
    load_s: float  # from the file on disk to an engine that is ready; fetching is not counted
    assumed: tuple[str, ...] = ()  # what the model's files leave open

    @cached_property
    def template(self) -> ChatTemplate:
        """Made on first use, so that a model without one still completes text. Raises `TemplateError`."""
        from openherd.tokenizers import ChatTemplate

        return ChatTemplate.of(self.template_source, self.tokenizer)

    @cached_property
    def format(self) -> ModelFormat:
        """How the model writes tool calls, and whether it thinks aloud: as its chat template says."""
        return model_format(self.template_source)

    @cached_property
    def marker_ids(self) -> Mapping[str, int]:
        """Markers of calls and thinking that are control tokens in this vocabulary."""
        return self.tokenizer.control_ids(self.format.markers(with_tools=True))

    def shown_ids(self, *, with_tools: bool) -> frozenset[int]:
        """Control tokens that an answer shows, because they say which part of it is what."""
        markers = self.format.markers(with_tools=with_tools)
        return frozenset(token_id for text, token_id in self.marker_ids.items() if text in markers)

    def adapter(self, name: str | None) -> int:
        """The engine's number of an adapter, -1 for none. Raises `InputError` that lists the known names."""
        if name is None:
            return -1
        if name not in self.adapters:
            known = ", ".join(sorted(self.adapters)) or "none"
            raise InputError(
                f"no adapter is called {name!r}; loaded: {known}", hint="Load one with --adapter NAME=PATH."
            )
        return self.adapters[name]


def load_model(
    ref: str | Path | None,
    *,
    options: EngineOptions,
    template: str | None,
    adapters: Mapping[str, str | Path],
    offline: bool,
    progress: Progress | None,
) -> LoadedModel:
    """Resolve, open and load. Raises `HerdError`s; nothing stays behind when one does."""
    path = resolve(None if ref is None else str(ref), offline=offline, progress=progress)
    started = perf_counter()
    checkpoint = open_checkpoint(path)
    source = checkpoint.chat_template if template is None else template_source(template)
    with _without_collector():
        tokenizer, engine = _build(checkpoint, options)
    try:
        numbers = {
            name: engine.load_adapter(open_adapter(Path(file), checkpoint.config)) for name, file in adapters.items()
        }
    except BaseException:
        engine.close()
        raise
    return LoadedModel(
        name=path.stem if ref is None else str(ref),
        path=path,
        config=checkpoint.config,
        tokenizer=tokenizer,
        engine=engine,
        adapters=numbers,
        template_source=source,
        assumed=checkpoint.assumed if template is None else checkpoint.notes,
        load_s=perf_counter() - started,
    )


@contextmanager
def _without_collector() -> Iterator[None]:
    """A vocabulary is a hundred thousand small objects, none of them garbage: looking for it costs time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _build(checkpoint: Checkpoint, options: EngineOptions) -> tuple[Tokenizer, Engine]:
    """Both at once: packing weights leaves the GIL to the tokenizer, whose building holds it.

    The tokenizer is built in this thread, whose freed memory the rest of the program uses again.
    """
    engine = meanwhile(lambda: _start(checkpoint, options))
    try:
        tokenizer = Tokenizer(checkpoint.tokenizer)
    except BaseException:
        with suppress(Exception):
            engine().close()
        raise
    started = engine()
    _give_back_freed_memory()
    return tokenizer, started


def _give_back_freed_memory() -> None:
    """What building left free goes back to the system; glibc would keep it, for each thread. Other systems: nothing."""
    if sys.platform == "linux":
        with suppress(AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)  # 0.6 ms, and 2 MB of a small model's peak


def _start(checkpoint: Checkpoint, options: EngineOptions) -> Engine:
    backend = make_backend(options.backend, options.threads)
    try:
        return Engine(
            backend, checkpoint.config, checkpoint.tensors, options=options, stop_ids=checkpoint.tokenizer.stop_ids
        )
    except BaseException:
        backend.close()
        raise
