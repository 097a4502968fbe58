"""A folder in Hugging Face's layout as a Checkpoint: config.json, weights, tokenizer, template, licence."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openherd.checkpoints.families import FAMILIES, Family, Present, by_model_type
from openherd.checkpoints.hf_template import read_hf_template
from openherd.checkpoints.hf_tokenizer import read_hf_tokenizer
from openherd.checkpoints.hf_weights import read_weights
from openherd.checkpoints.json_keys import JsonKeys, read_json_keys, read_json_keys_if_there
from openherd.checkpoints.mapped_tensors import FileTensors, canonical_tensors, first_layer
from openherd.checkpoints.source import Checkpoint, Tensor
from openherd.config import ModelConfig
from openherd.errors import FormatError, UnsupportedError

CONFIG, GENERATION = "config.json", "generation_config.json"
NAME = "openherd_name"  # the key of config.json that has the model's name
_EMBEDDING, _HEAD = "model.embed_tokens.weight", "lm_head.weight"
_LICENSE = re.compile(r"^license:[ \t]*[\"']?([\w.+-]{1,64})[\"']?[ \t]*$", re.MULTILINE)
_FRONT_MATTER = 1 << 14  # characters of a model card that are looked through
_LONGEST_METADATA = 200
_LONGEST_NAME = 300


@dataclass(frozen=True, slots=True)
class HFFolder:
    """What the folder's files say, before a config is made of them."""

    path: Path
    keys: JsonKeys
    family: Family | None  # None: of a model_type that openherd does not run
    weights: dict[str, Tensor]  # by the files' own names
    files: tuple[Path, ...]
    kind: str  # "safetensors" or "torch"


def open_hf(folder: Path) -> Checkpoint:
    """Read the headers of the folder's files, check them whole, and map the tensors.

    Raises FormatError, UnsupportedError or ModelNotFoundError (a file that must be there is not).
    """
    require_family(read_json_keys(folder / CONFIG))
    files = read_hf_folder(folder)
    config, tensors = read_model(files)
    tokenizer, _ = read_hf_tokenizer(folder, config.vocab_size, end_ids(folder, files.keys))
    template, template_source = read_hf_template(folder)
    return Checkpoint(
        path=folder,
        format=format_of(files),
        config=config,
        tensors=tensors,
        tokenizer=tokenizer,
        chat_template=template,
        license=read_license(folder, files.keys),
        metadata=short_metadata(files.keys),
        template_source=template_source,
        files=files.files,
        name=read_name(files.keys),
    )


def format_of(folder: HFFolder) -> str:
    """The format in words."""
    shards = f", {len(folder.files)} shards" if len(folder.files) > 1 else ""
    return f"Hugging Face ({folder.kind}{shards})"


def require_family(keys: JsonKeys) -> Family:
    """The family that config.json names. Raises UnsupportedError for one that openherd does not run."""
    family = by_model_type(keys.text("model_type"))
    if family is None:
        runs = "; ".join(f"{', '.join(map(repr, family.model_types))} ({family.shown})" for family in FAMILIES)
        raise UnsupportedError(f"{keys.path} has the model_type {keys.shown('model_type')}; openherd runs {runs}")
    return family


def read_hf_folder(folder: Path) -> HFFolder:
    """Config and weights, each checked by itself, of whatever family. Raises as `open_hf`."""
    keys = read_json_keys(folder / CONFIG)
    family = by_model_type(keys.text("model_type"))
    ignored = family.ignored if family else ()
    weights, files, kind = read_weights(folder, lambda name: name.endswith(ignored))
    return HFFolder(folder, keys, family, weights, files, kind)


def read_model(folder: HFFolder) -> tuple[ModelConfig, dict[str, Tensor]]:
    """The config that config.json and the tensors make together, and every tensor that it needs."""
    family = require_family(folder.keys)
    names = family.names["hf"]
    embedding, head = names.to_file(_EMBEDDING), names.to_file(_HEAD)
    assert embedding is not None
    assert head is not None
    if embedding not in folder.weights or len(folder.weights[embedding].shape) != 2:
        raise FormatError(f"{folder.path}: the tensor {embedding} is missing or not a matrix")
    present = Present(
        vocab_size=folder.weights[embedding].shape[0],
        tied=head not in folder.weights,
        layer=first_layer(folder.weights, names),
    )
    config = family.hf_config(folder.keys, present)
    file = FileTensors(
        where=str(folder.path),
        tensors=folder.weights,
        names=names,
        interleaved="hf" in family.interleaved,
        # A tied model's file may hold the matrix a second time; transformers does not look at it.
        ignored=lambda name: config.tied_embeddings and name == head,
    )
    return config, canonical_tensors(file, config)


def end_ids(folder: Path, config: JsonKeys) -> tuple[int, ...]:
    """Ids that end an answer, as generation_config.json and config.json say."""
    generation = read_json_keys_if_there(folder / GENERATION)
    return generation.wholes("eos_token_id") + config.wholes("eos_token_id")


def read_name(keys: JsonKeys) -> str | None:
    """What openherd wrote there. transformers' `_name_or_path` is where a model was loaded from: of a fine-tuned one
    that is another model."""
    name = dict(keys.items()).get(NAME)
    return name if isinstance(name, str) and is_name(name) else None


def is_name(text: str) -> bool:
    """Whether config.json may have it as the model's name: one line that a person can read."""
    return len(text) <= _LONGEST_NAME and text.isprintable() and bool(text.strip())


def read_license(folder: Path, keys: JsonKeys) -> str | None:
    """The licence that config.json or the head of the model card (README.md) names; else the name of a licence file."""
    if "license" in keys and isinstance(keys["license"], str):
        return keys.text("license")
    card = folder / "README.md"
    try:
        head = ""
        if card.is_file():  # opening a pipe would wait for its writer
            with card.open(encoding="utf-8", errors="replace") as file:
                head = file.read(_FRONT_MATTER)
    except OSError:
        head = ""
    match = _LICENSE.search(head.split("\n---", 1)[0]) if head.startswith("---") else None
    if match:
        return match[1]
    return next(
        (f"see {name}" for name in ("LICENSE", "LICENSE.txt", "LICENSE.md") if os.path.isfile(folder / name)), None
    )


def short_metadata(keys: JsonKeys) -> dict[str, Any]:
    """The keys as plain values, long ones cut."""
    return {key: value if len(repr(value)) <= _LONGEST_METADATA else keys.shown(key)[:_LONGEST_METADATA]
            for key, value in keys.items()}  # fmt: skip
