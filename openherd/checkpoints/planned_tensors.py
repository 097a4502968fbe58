"""Canonical tensors as those of a file to be written: the layout's names, its row order, the asked type.

The inverse of `mapped_tensors`: what a layout keeps in one tensor (fused projections, stacked experts) is put
together from its parts, row range by row range. Data is read, reordered and rounded chunk by chunk when its turn comes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from openherd.checkpoints.families import Family, Layout
from openherd.checkpoints.gguf_writer import PlannedTensor
from openherd.checkpoints.mapped_tensors import raised
from openherd.checkpoints.required_tensors import required_tensors
from openherd.checkpoints.rotary_rows import interleaved_from_halves, is_rotary
from openherd.checkpoints.source import Tensor, TensorSource
from openherd.config import ModelConfig
from openherd.errors import UnsupportedError
from openherd.quant.dequantize import dequantize
from openherd.quant.finite import finite
from openherd.quant.quantize import HALF_MAX, quantize
from openherd.quant.types import BLOCK_TYPES, BlockType

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]
TypeOf = Callable[[Tensor], BlockType]
_CHUNK_VALUES = 1 << 20
_BF16 = BLOCK_TYPES["BF16"]
_LARGEST = {"F16": HALF_MAX, "BF16": 3.3895314e38}


@dataclass(frozen=True, slots=True)
class _Part:
    """Rows `start` to `stop` of a canonical tensor, at row `at` of the file's."""

    tensor: Tensor
    at: int
    start: int
    stop: int


def planned_tensors(
    tensors: TensorSource, config: ModelConfig, family: Family, layout: Layout, type_of: TypeOf
) -> list[PlannedTensor]:
    """In the order that `required_tensors` has. Raises UnsupportedError for a family that has no such layout."""
    if layout not in family.names:
        raise UnsupportedError(f"models of the family {family.name} are not written in the layout {layout}")
    parts: dict[str, list[_Part]] = {}
    stacked: set[str] = set()
    for name, _ in required_tensors(config):
        place = family.names[layout].place(name)
        assert place is not None, name
        tensor = raised(tensors[name], -place.added) if place.added else tensors[name]
        size = tensor.shape[0]
        ranges = [range(size)] if place.rows is None else place.rows(config, place.expert)
        start = 0
        for rows in ranges:
            parts.setdefault(place.name, []).append(_Part(tensor, rows.start, start, start + len(rows)))
            start += len(rows)
        if _is_stack(name, place.name):
            stacked.add(place.name)
    head_dim = config.head_dim if layout in family.interleaved else 0
    return [_planned(name, found, type_of, head_dim, stacked=name in stacked) for name, found in parts.items()]


def copied_tensor(name: str, tensor: Tensor, type: BlockType) -> PlannedTensor:
    """A tensor as it is, under a file's own name, in another float type if asked."""
    return PlannedTensor(name, tensor.shape, type, lambda: converted_rows(tensor, type))


def converted_rows(
    tensor: Tensor, type: BlockType, *, start: int = 0, stop: int | None = None, head_dim: int = 0
) -> Iterator[U8]:
    """Rows `start` to `stop` (elements, of a vector) as blocks of `type`; `head_dim`: query or key rows, reordered."""
    raw = tensor.rows()
    if len(tensor.shape) == 1:
        raw = raw.reshape(tensor.shape[0], tensor.type.block_bytes)  # an element is a row here
    raw = raw[start:stop]
    step = max(1, _CHUNK_VALUES // (tensor.shape[-1] if len(tensor.shape) > 1 else 1))
    if head_dim:
        step = -(-step // head_dim) * head_dim
    for at in range(0, len(raw), step):
        rows = raw[at : at + step]
        if head_dim:
            rows = interleaved_from_halves(rows, head_dim)
        yield rows if type == tensor.type else _rounded(tensor, rows, type)
    tensor.give_back()


def _is_stack(canonical: str, in_file: str) -> bool:
    """Whether the file's tensor holds all experts of a layer: it has a number less."""
    return sum(part.isdigit() for part in canonical.split(".")) > sum(part.isdigit() for part in in_file.split("."))


def _planned(name: str, parts: list[_Part], type_of: TypeOf, head_dim: int, *, stacked: bool) -> PlannedTensor:
    parts = sorted(parts, key=lambda part: part.at)
    first = parts[0].tensor
    size = sum(part.stop - part.start for part in parts)
    shape: tuple[int, ...] = (size, *first.shape[1:])
    if stacked:
        shape = (len(parts), first.shape[0], *first.shape[1:])
    type = type_of(first)

    def chunks() -> Iterator[U8]:
        for part in parts:
            reorder = head_dim if is_rotary(part.tensor.name) else 0
            yield from converted_rows(part.tensor, type, start=part.start, stop=part.stop, head_dim=reorder)

    return PlannedTensor(name, shape, type, chunks)


def _rounded(tensor: Tensor, rows: U8, type: BlockType) -> U8:
    """Raises UnsupportedError for values that the type cannot hold."""
    values = dequantize(rows, tensor.type)
    raw = quantize(values, type)
    if _becomes_infinite(values, raw, type):
        helps = type.name == "F16" and not _becomes_infinite(values, quantize(values, _BF16), _BF16)
        raise UnsupportedError(
            f"{tensor.name} holds values beyond {_LARGEST[type.name]:g}, the largest of {type.name.lower()}",
            hint=f"try: --dtype {'bf16' if helps else 'f32'}",
        )
    return raw


def _becomes_infinite(values: F32, raw: U8, type: BlockType) -> bool:
    """Whether a finite value does, as blocks of a plain type."""
    lost = ~finite(raw, type)
    return bool(lost.any()) and bool(np.isfinite(values.reshape(-1)[lost]).any())
