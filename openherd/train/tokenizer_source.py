"""The tokenizer and chat template of data: those of a model, or of a folder that `herd train tokenizer` wrote."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from openherd.checkpoints import open_checkpoint
from openherd.checkpoints.hf_template import read_hf_template
from openherd.checkpoints.hf_tokenizer import JSON, read_hf_tokenizer
from openherd.checkpoints.source import Checkpoint
from openherd.checkpoints.tokenizer_json import read_tokenizer_json
from openherd.llm.templates import template_source
from openherd.store.resolve import resolve
from openherd.tokenizers import ChatTemplate, Tokenizer
from openherd.tokenizers.spec import TokenizerSpec

_OF_MODELS = ("config.json", "params.json")


@dataclass(frozen=True, slots=True)
class TokenizerSource:
    """What was found; `checkpoint` is None for a folder of a tokenizer alone."""

    spec: TokenizerSpec
    template: str | None  # Jinja
    checkpoint: Checkpoint | None = None

    def tokenizer(self) -> Tokenizer:
        return Tokenizer(self.spec)

    def chat_template(self, tokenizer: Tokenizer) -> ChatTemplate | None:
        return None if self.template is None else ChatTemplate.of(self.template, tokenizer)


def open_tokenizer(ref: str | None, *, template: str | None = None, offline: bool = False) -> TokenizerSource:
    """`ref`: a folder of a tokenizer, or any model (None: the default one). `template`: another chat template, a file
    or a built-in name. Raises InputError and its kinds for what cannot be found or read."""
    asked = None if template is None else template_source(template)
    if ref is not None and _is_tokenizer_folder(folder := Path(os.path.expanduser(ref))):
        table = read_tokenizer_json(folder / JSON).table
        spec, _ = read_hf_tokenizer(folder, max(table.tokens, default=-1) + 1, ())
        return TokenizerSource(spec, asked or read_hf_template(folder)[0])
    checkpoint = open_checkpoint(resolve(ref, offline=offline))
    return TokenizerSource(checkpoint.tokenizer, asked or checkpoint.chat_template, checkpoint)


def _is_tokenizer_folder(folder: Path) -> bool:
    """os.path finds nothing where pathlib raises: in a name that is too long."""
    return os.path.isfile(folder / JSON) and not any(os.path.lexists(folder / name) for name in _OF_MODELS)
