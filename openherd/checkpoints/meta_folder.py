"""A folder in Meta's own layout as a Checkpoint: params.json, consolidated.NN.pth, tokenizer.model.

A model trained with tensor parallelism comes in one file for each part. Parts are joined here when a tensor is read:
rows one after another for maps whose outputs were split, columns for those whose inputs were. Llama 1 and 2 split the
embedding's columns, Llama 3 its rows; the shapes tell. Rows of queries and keys are in pairs (`rotary_rows`).

Source: `model.py` and its fairscale layers in the code that Meta released with Llama 2 and 3. Not covered: parts that
hold copies of key and value heads, vision models, quantised and LoRA releases.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from openherd.checkpoints.families import by_name
from openherd.checkpoints.families.llama import NAME
from openherd.checkpoints.hf_folder import read_license, short_metadata
from openherd.checkpoints.json_keys import JsonKeys, read_json_keys
from openherd.checkpoints.mapped_tensors import FileTensors, canonical_tensors
from openherd.checkpoints.meta_params import Generation, MetaShapes, read_params
from openherd.checkpoints.meta_tokenizer import has_tiktoken_form, read_meta_tokenizer
from openherd.checkpoints.source import BUILT_IN, Checkpoint, Tensor
from openherd.checkpoints.torch_file import read_torch_file
from openherd.config import ModelConfig
from openherd.errors import FormatError, ModelNotFoundError
from openherd.tokenizers.named_templates import named_template

PARAMS, TOKENIZER = "params.json", "tokenizer.model"
_PART = re.compile(r"consolidated\.([0-9]{2})\.pth")
_SPLIT_COLUMNS = (".attention.wo.weight", ".feed_forward.w2.weight")
_EMBEDDING, _OUTPUT, _GATE = "tok_embeddings.weight", "output.weight", "layers.0.feed_forward.w1.weight"
# The prompt format of each generation's chat models. Nothing in a folder says whether a model is one.
_TEMPLATES: dict[Generation, str] = {
    "Llama 2": "llama-2", "Code Llama": "llama-2", "Llama 3": "llama-3", "Llama 3.1": "llama-3", "Llama 3.2": "llama-3",
}  # fmt: skip

U8 = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class MetaFolder:
    """What the folder's files say, before a config is made of them."""

    path: Path
    keys: JsonKeys
    weights: dict[str, Tensor]  # joined, by Meta's names
    files: tuple[Path, ...]
    tokenizer: Path
    tiktoken: bool


def open_meta(folder: Path) -> Checkpoint:
    """Read the headers of the folder's files, check them whole, and map the tensors.

    Raises FormatError, UnsupportedError or ModelNotFoundError (a file that must be there is not).
    """
    files = read_meta_folder(folder)
    config, tensors, generation, notes = read_model(files)
    template, source = default_template(generation)
    return Checkpoint(
        path=folder,
        format=format_of(files),
        config=config,
        tensors=tensors,
        tokenizer=read_meta_tokenizer(files.tokenizer, config.vocab_size, generation),
        chat_template=template,
        license=read_license(folder, files.keys),
        metadata=short_metadata(files.keys),
        template_source=source,
        files=files.files,
        notes=notes,
    )


def format_of(folder: MetaFolder) -> str:
    """The format in words."""
    parts = f" ({len(folder.files)} parts)" if len(folder.files) > 1 else ""
    return f"Meta's .pth{parts}"


def default_template(generation: Generation) -> tuple[str | None, str | None]:
    """(the prompt format of the generation's chat models, what to say of it)."""
    name = _TEMPLATES.get(generation)
    if name is None:
        return None, None
    return named_template(name), f"{BUILT_IN}{name}, the format of {generation}'s chat models (the folder has none, "\
        "and does not say whether this is one or a base model)"  # fmt: skip


def read_meta_folder(folder: Path) -> MetaFolder:
    """Parameters and joined weights, each checked by itself. Raises as `open_meta`."""
    keys = read_json_keys(folder / PARAMS)
    parts = _parts(folder)
    ignored = by_name(NAME).ignored
    shards = [read_torch_file(part, ignored=lambda name: name.endswith(ignored)) for part in parts]
    dim = keys.whole("dim", least=1)
    # Llama 1 and 2 were released with one tokenizer beside the folders of all sizes.
    places = (folder / TOKENIZER, folder.absolute().parent / TOKENIZER)
    tokenizer = next((place for place in places if os.path.isfile(place)), None)
    if tokenizer is None:
        raise ModelNotFoundError(f"{folder} holds no {TOKENIZER}, and neither does the folder above it")
    return MetaFolder(folder, keys, _joined(parts, shards, dim), parts, tokenizer, has_tiktoken_form(tokenizer))


def read_model(folder: MetaFolder) -> tuple[ModelConfig, dict[str, Tensor], Generation, tuple[str, ...]]:
    """(config, every tensor that it needs, generation, what was assumed)."""
    for name in (_EMBEDDING, _GATE):
        if name not in folder.weights or len(folder.weights[name].shape) != 2:
            raise FormatError(f"{folder.path}: the tensor {name} is missing or not a matrix")
    shapes = MetaShapes(
        vocab_size=folder.weights[_EMBEDDING].shape[0],
        ffn_dim=folder.weights[_GATE].shape[0],
        tied=_OUTPUT not in folder.weights,
    )
    config, generation, notes = read_params(folder.keys, shapes, tiktoken=folder.tiktoken)
    family = by_name(NAME)
    file = FileTensors(
        where=str(folder.path),
        tensors=folder.weights,
        names=family.names["meta"],
        interleaved="meta" in family.interleaved,
        ignored=lambda name: False,
    )
    return config, canonical_tensors(file, config), generation, notes


def _parts(folder: Path) -> tuple[Path, ...]:
    """consolidated.00.pth and so on, none missing."""
    numbers = sorted(int(match[1]) for name in os.listdir(folder) if (match := _PART.fullmatch(name)))
    if not numbers:
        raise ModelNotFoundError(f"{folder} holds {PARAMS} but no consolidated.00.pth")
    if numbers != list(range(len(numbers))):
        missing = next(i for i in range(len(numbers)) if i not in numbers)
        raise FormatError(f"{folder}: consolidated.{missing:02}.pth is missing")
    return tuple(folder / f"consolidated.{number:02}.pth" for number in numbers)


def _joined(parts: tuple[Path, ...], shards: list[dict[str, Tensor]], dim: int) -> dict[str, Tensor]:
    first = shards[0]
    for part, shard in zip(parts, shards, strict=True):
        if shard.keys() != first.keys():
            name = sorted(shard.keys() ^ first.keys())[0]
            raise FormatError(f"{part}: the tensor {name[:80]} is not in every part")
        for name, tensor in shard.items():
            if tensor.shape != first[name].shape or tensor.type != first[name].type:
                raise FormatError(f"{part}: the tensor {name[:80]} has another shape or type than in {parts[0].name}")
    if len(shards) == 1:
        return first
    return {name: _join([shard[name] for shard in shards], dim) for name in first}


def _join(parts: list[Tensor], dim: int) -> Tensor:
    """The whole of which every part holds a piece; a vector (a norm) is the same in all."""
    first = parts[0]
    if len(first.shape) != 2:
        return first
    n, k = first.shape
    by_columns = first.name.endswith(_SPLIT_COLUMNS) or (first.name == _EMBEDDING and k != dim)
    shape = (n, k * len(parts)) if by_columns else (n * len(parts), k)
    return Tensor(
        first.name,
        shape,
        first.type,
        partial(_read, parts, 1 if by_columns else 0),
        partial(_give_back, parts),
    )


def _read(parts: list[Tensor], axis: int) -> U8:
    return np.concatenate([part.rows() for part in parts], axis=axis)


def _give_back(parts: list[Tensor]) -> None:
    for part in parts:
        part.give_back()
