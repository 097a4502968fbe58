"""From a model reference to an engine that is ready to run."""

from __future__ import annotations

from collections.abc import Mapping
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
from openherd.llm.templates import template_source
from openherd.options import EngineOptions
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

    @cached_property
    def template(self) -> ChatTemplate:
        """Made on first use, so that a model without one still completes text. Raises `TemplateError`."""
        from openherd.tokenizers import ChatTemplate

        bos, eos = (self._token_text(token) for token in (self.tokenizer.bos_id, self.tokenizer.eos_id))
        return ChatTemplate(self.template_source, bos_token=bos, eos_token=eos)

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

    def _token_text(self, token_id: int | None) -> str:
        return "" if token_id is None else self.tokenizer.token_bytes(token_id).decode("utf-8", "replace")


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
    tokenizer = Tokenizer(checkpoint.tokenizer)
    engine = _start(checkpoint, tokenizer, options)
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
        load_s=perf_counter() - started,
    )


def _start(checkpoint: Checkpoint, tokenizer: Tokenizer, options: EngineOptions) -> Engine:
    backend = make_backend(options.backend, options.threads)
    try:
        return Engine(backend, checkpoint.config, checkpoint.tensors, options=options, stop_ids=tokenizer.stop_ids)
    except BaseException:
        backend.close()
        raise
