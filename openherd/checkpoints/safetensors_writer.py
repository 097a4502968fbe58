"""Safetensors files: one, or shards with their index. The same input gives the same bytes.

Source: the safetensors format; transformers' names of shards and index. Only headers are held in memory.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from openherd.checkpoints.gguf_writer import PlannedTensor
from openherd.checkpoints.new_file import OnProgress, Piece, Progress, fill_file, forget_journal, write_new_text
from openherd.quant.types import PLAIN_TYPES

_ALIGNMENT = 8  # of the data, by spaces after the header
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
FILE_METADATA = {"format": "pt"}  # which transformers asks for


@dataclass(frozen=True, slots=True)
class Laid:
    """A file as it will be."""

    head: bytes
    pieces: list[Piece]
    size: int


def lay_out(tensors: Sequence[PlannedTensor], metadata: Mapping[str, str]) -> Laid:
    """Raises ValueError for a type that the format lacks, or a name that stands twice."""
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    pos = 0
    for tensor in tensors:
        if tensor.type.name not in PLAIN_TYPES:
            raise ValueError(
                f"{tensor.name}: safetensors has no type {tensor.type.name}; it has {', '.join(PLAIN_TYPES)}"
            )
        if tensor.name in header:
            raise ValueError(f"the tensor {tensor.name} is planned twice")
        header[tensor.name] = {
            "dtype": tensor.type.name,
            "shape": list(tensor.shape),
            "data_offsets": [pos, pos + tensor.nbytes],
        }
        pos += tensor.nbytes
    raw = json.dumps(header, separators=(",", ":"), ensure_ascii=True).encode()
    raw += b" " * (-len(raw) % _ALIGNMENT)
    head = struct.pack("<Q", len(raw)) + raw
    pieces, at = [], len(head)
    for tensor in tensors:
        pieces.append(Piece(tensor.name, at, tensor.nbytes, tensor.chunks))
        at += tensor.nbytes
    return Laid(head, pieces, at)


def shards_of(tensors: Sequence[PlannedTensor], max_bytes: int | None) -> dict[str, list[PlannedTensor]]:
    """File names and the tensors of each, in order: a shard ends before it would grow beyond `max_bytes`."""
    groups: list[list[PlannedTensor]] = [[]]
    size = 0
    for tensor in tensors:
        if groups[-1] and max_bytes is not None and size + tensor.nbytes > max_bytes:
            groups.append([])
            size = 0
        groups[-1].append(tensor)
        size += tensor.nbytes
    if len(groups) == 1:
        return {SINGLE: groups[0]}
    return {f"model-{i + 1:05}-of-{len(groups):05}.safetensors": group for i, group in enumerate(groups)}


def fill_shards(
    folder: Path,
    shards: Mapping[str, Sequence[PlannedTensor]],
    *,
    resume_key: str,
    on_progress: OnProgress | None = None,
) -> int:
    """The shards, and their index if there are several, in a folder that nobody reads yet.

    Journals stay, so that an interrupted run goes on; `forget_journals` ends that. Returns the number of tensors that
    were taken over from an earlier run.
    """
    total = sum(tensor.nbytes for tensors in shards.values() for tensor in tensors)
    done = kept = 0
    for name, tensors in shards.items():
        laid = lay_out(tensors, FILE_METADATA)
        kept += fill_file(
            folder / name,
            laid.head,
            laid.pieces,
            size=laid.size,
            resume_key=resume_key,
            on_progress=None if on_progress is None else _shifted(on_progress, done - len(laid.head), total),
        )
        done += laid.size - len(laid.head)
    if len(shards) > 1:
        weight_map = {tensor.name: name for name, tensors in shards.items() for tensor in tensors}
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        write_new_text(folder / INDEX, json.dumps(index, indent=2) + "\n")
    return kept


def forget_journals(folder: Path, shards: Mapping[str, object]) -> None:
    for name in shards:
        forget_journal(folder / name)


def _shifted(on_progress: OnProgress, by: int, total: int) -> Callable[[Progress], None]:
    return lambda progress: on_progress(Progress(progress.name, progress.done + by, total))
