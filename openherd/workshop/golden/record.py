"""Golden values of a model, made by computing them once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from openherd import __version__
from openherd.checkpoints import open_checkpoint
from openherd.checkpoints.source import Checkpoint
from openherd.errors import FormatError, TemplateError, UnsupportedError
from openherd.tokenizers import ChatTemplate, Tokenizer
from openherd.workshop.golden.chats import CHATS, render
from openherd.workshop.golden.document import Golden, RenderedChat, read_golden
from openherd.workshop.golden.next_tokens import TOP, measured
from openherd.workshop.golden.rotation import rotation
from openherd.workshop.golden.tensors import tensor_facts
from openherd.workshop.golden.vocabulary import vocabulary

Say = Callable[[str], None]


def record(path: Path, *, threads: int | None = None, say: Say = lambda text: None) -> Golden:
    """Golden values of the model at `path`: reads every tensor and runs the model on short prompts.

    Raises HerdError for a model that openherd does not run, as nothing could be promised about it, and UnsupportedError
    for one of so many tensors that the values would be too long to travel with it, or whose values a reader refuses.
    """
    checkpoint = open_checkpoint(path)
    tokenizer = Tokenizer(checkpoint.tokenizer)
    say("reading the tensors")
    tensors = {name: tensor_facts(checkpoint.tensors[name]) for name in sorted(checkpoint.tensors)}
    say("computing what follows short prompts")
    result = measured(path, None, threads=threads)
    golden = Golden(
        made_by=f"openherd {__version__}",
        numerics_id=result.numerics_id,
        config=asdict(checkpoint.config),
        rotation=rotation(checkpoint.config),
        vocabulary=vocabulary(tokenizer, checkpoint.tokenizer),
        template=checkpoint.chat_template,
        chats=_chats(checkpoint, tokenizer),
        tensors=tensors,
        next_tokens=tuple(replace(one, top=one.top[:TOP]) for one in result.next_tokens),
    )
    try:
        read_golden(golden.to_bounded_json().encode(), "its golden values")
    except FormatError as error:
        raise UnsupportedError(
            f"{path} has values beyond what can be recorded; {error}", hint="try: --no-golden"
        ) from None
    return golden


def _chats(checkpoint: Checkpoint, tokenizer: Tokenizer) -> tuple[RenderedChat, ...]:
    """None of a template that does not compile: its text is compared all the same."""
    if checkpoint.chat_template is None:
        return ()
    try:
        template = ChatTemplate.of(checkpoint.chat_template, tokenizer)
    except TemplateError:
        return ()
    return tuple(render(template, messages) for messages in CHATS)
