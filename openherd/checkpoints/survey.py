"""What the headers of a model say, whether openherd runs it or not: the ground for `herd inspect`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from openherd.checkpoints import gguf, hf_folder, layout_of, meta_folder
from openherd.checkpoints.families import Family, Layout, by_architecture, by_name
from openherd.checkpoints.families.llama import NAME as LLAMA
from openherd.checkpoints.gguf_keys import Keys
from openherd.checkpoints.gguf_parts import read_gguf
from openherd.checkpoints.hf_template import read_hf_template
from openherd.checkpoints.hf_tokenizer import read_hf_tokenizer
from openherd.checkpoints.meta_tokenizer import read_meta_tokenizer
from openherd.checkpoints.name_table import NameTable
from openherd.checkpoints.source import Tensor
from openherd.config import ModelConfig
from openherd.errors import HerdError
from openherd.tokenizers.spec import TokenizerSpec

T = TypeVar("T")
_NO_NAMES = NameTable({})
_NO_TOKENIZER: dict[str, Any] = {"model": None, "pre": None, "vocab_size": None, "source": None}


@dataclass(frozen=True, slots=True)
class Survey:
    """`config` is None for a model that openherd does not run, and `unsupported` says why."""

    path: Path
    format: str
    file_bytes: int
    name: str | None
    license: str | None
    architecture: str | None
    config: ModelConfig | None
    unsupported: str | None
    tensors: Mapping[str, Tensor]  # by the files' own names
    names: NameTable
    tokenizer: dict[str, Any]
    template: str | None
    template_source: str | None
    files: tuple[Path, ...]
    notes: tuple[str, ...]
    metadata: dict[str, Any]


def survey(path: Path) -> Survey:
    """Raises FormatError, ModelNotFoundError, or UnsupportedError for headers that cannot be read."""
    return {"gguf": _gguf, "hf": _hf, "meta": _meta}[layout_of(path)](path)


def _tried(read: Callable[[], T]) -> tuple[T | None, str | None]:
    """(what `read` gives, None), or (None, why openherd does not run the model)."""
    try:
        return read(), None
    except HerdError as error:
        return None, str(error)


def _gguf(path: Path) -> Survey:
    model = read_gguf(path)
    keys = model.keys
    made, unsupported = _tried(lambda: gguf.read_model(model))
    template = _text(keys, gguf.TEMPLATE)
    metadata = gguf.short_metadata(model)
    metadata.pop(gguf.TEMPLATE, None)
    tokens = "tokenizer.ggml.tokens"
    architecture = _text(keys, "general.architecture")
    return Survey(
        path=path,
        format=gguf.format_of(model),
        file_bytes=model.file_bytes,
        name=_text(keys, "general.name"),
        license=_text(keys, "general.license"),
        architecture=architecture,
        config=made[0] if made else None,
        unsupported=unsupported,
        tensors=model.tensors,
        names=_names(by_architecture(architecture or ""), "gguf"),
        tokenizer={
            "model": _text(keys, "tokenizer.ggml.model"),
            "pre": _text(keys, "tokenizer.ggml.pre"),
            "vocab_size": len(keys.strings(tokens)) if tokens in keys else None,
            "source": "header",
        },
        template=template,
        template_source=None if template is None else gguf.TEMPLATE,
        files=model.files,
        notes=(),
        metadata=metadata,
    )


def _hf(folder: Path) -> Survey:
    files = hf_folder.read_hf_folder(folder)
    made, unsupported = _tried(lambda: hf_folder.read_model(files))
    tokenizer = _NO_TOKENIZER
    if made:
        read, why = _tried(lambda: read_hf_tokenizer(folder, made[0].vocab_size, hf_folder.end_ids(folder, files.keys)))
        unsupported = unsupported or why
        if read:
            tokenizer = _tokenizer(*read)
    template, source = read_hf_template(folder)
    return Survey(
        path=folder,
        format=hf_folder.format_of(files),
        file_bytes=_bytes(files.files),
        name=hf_folder.read_name(files.keys),
        license=hf_folder.read_license(folder, files.keys),
        architecture=files.keys.text("model_type"),
        config=made[0] if made and not unsupported else None,
        unsupported=unsupported,
        tensors=files.weights,
        names=_names(files.family, "hf"),
        tokenizer=tokenizer,
        template=template,
        template_source=source,
        files=files.files,
        notes=(),
        metadata=hf_folder.short_metadata(files.keys),
    )


def _meta(folder: Path) -> Survey:
    files = meta_folder.read_meta_folder(folder)
    made, unsupported = _tried(lambda: meta_folder.read_model(files))
    config, generation, notes = (made[0], made[2], made[3]) if made else (None, None, ())
    tokenizer, template, source = _NO_TOKENIZER, None, None
    if config and generation:
        spec, unsupported = _tried(lambda: read_meta_tokenizer(files.tokenizer, config.vocab_size, generation))
        tokenizer = _tokenizer(spec, str(files.tokenizer)) if spec else _NO_TOKENIZER
        template, source = meta_folder.default_template(generation)
    return Survey(
        path=folder,
        format=meta_folder.format_of(files),
        file_bytes=_bytes(files.files),
        name=None,
        license=hf_folder.read_license(folder, files.keys),
        architecture=LLAMA,
        config=None if unsupported else config,
        unsupported=unsupported,
        tensors=files.weights,
        names=_names(by_name(LLAMA), "meta"),
        tokenizer=tokenizer,
        template=template,
        template_source=source,
        files=files.files,
        notes=notes,
        metadata=hf_folder.short_metadata(files.keys),
    )


def _names(family: Family | None, layout: Layout) -> NameTable:
    return family.names.get(layout, _NO_NAMES) if family else _NO_NAMES


def _tokenizer(spec: TokenizerSpec, source: str) -> dict[str, Any]:
    return {"model": spec.kind, "pre": spec.pre or None, "vocab_size": len(spec.tokens), "source": source}


def _bytes(files: tuple[Path, ...]) -> int:
    return sum(os.path.getsize(file) for file in files)


def _text(keys: Keys, key: str) -> str | None:
    return keys.text(key) if key in keys else None
