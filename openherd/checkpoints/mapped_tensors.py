"""From the tensors of a file to those that a config needs: canonical names, rows and order.

Everything that the config needs must be there with its shape, and nothing may be left over that would take part.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from openherd.checkpoints.name_table import NameTable, Place
from openherd.checkpoints.required_tensors import required_tensors
from openherd.checkpoints.rotary_rows import halves_from_interleaved, is_rotary
from openherd.checkpoints.source import Tensor
from openherd.config import ModelConfig
from openherd.errors import FormatError, UnsupportedError
from openherd.quant.dequantize import dequantize
from openherd.quant.types import BLOCK_TYPES, PLAIN_TYPES

U8 = NDArray[np.uint8]
Shape = tuple[int, ...]

# Biases and norms are stored plain: a quantised one would have blocks that span heads.


@dataclass(frozen=True, slots=True)
class FileTensors:
    """The tensors of a file under its own names. `where` begins every message."""

    where: str
    tensors: Mapping[str, Tensor]
    names: NameTable
    interleaved: bool  # rows of queries and keys pair 2i with 2i + 1 (`rotary_rows`)
    ignored: Callable[[str], bool]  # tensors that follow from the config


def canonical_tensors(file: FileTensors, config: ModelConfig) -> dict[str, Tensor]:
    """Every tensor that `config` needs, nothing read yet.

    Raises FormatError for one that is missing or has another shape or rows left over, UnsupportedError for one that
    is of no use or has a type that cannot be used.
    """
    found: dict[str, Tensor] = {}
    rows_used: Counter[str] = Counter()
    for name, shape in required_tensors(config):
        place = file.names.place(name)
        assert place is not None, name
        tensor = file.tensors.get(place.name)
        if tensor is None:
            raise FormatError(f"{file.where}: the tensor {place.name} is missing")
        if len(shape) == 1 and tensor.type.name not in PLAIN_TYPES:
            raise UnsupportedError(f"{file.where}: {place.name} has type {tensor.type.name}; a vector must be plain")
        ranges = _ranges(file, config, place, tensor, shape)
        rows_used[place.name] += _size(tensor, shape) if ranges is None else sum(map(len, ranges))
        read = _reader(file, tensor, name, ranges, config)
        canonical = Tensor(name, shape, tensor.type, read, tensor.give_back)
        found[name] = raised(canonical, place.added) if place.added else canonical
    _check_rest(file, found, rows_used)
    return found


def raised(vector: Tensor, added: float) -> Tensor:
    """A plain vector with `added` to each value, in float32."""

    def read() -> U8:
        values = dequantize(vector.rows(), vector.type) + np.float32(added)
        return np.ascontiguousarray(values, np.float32).view(np.uint8).reshape(1, -1)

    return Tensor(vector.name, vector.shape, BLOCK_TYPES["F32"], read, vector.give_back)


def first_layer(names_in_file: Iterable[str], names: NameTable) -> frozenset[str]:
    """Canonical tensors of layer 0 after its number ("self_attn.q_proj.bias"): what one layer has, all must have."""
    prefix = "model.layers.0."
    found = (name for in_file in names_in_file for name in names.from_file(in_file))
    return frozenset(name.removeprefix(prefix) for name in found if name.startswith(prefix))


def _size(tensor: Tensor, shape: Shape) -> int:
    """Rows of a matrix, elements of a vector."""
    return tensor.n_rows if len(shape) > 1 else tensor.shape[0]


def _ranges(
    file: FileTensors, config: ModelConfig, place: Place, tensor: Tensor, shape: Shape
) -> Sequence[range] | None:
    """The rows to take, None for all of them, checked to make `shape` out of what is there."""
    if place.rows is None:
        if tensor.shape != shape:
            raise FormatError(f"{file.where}: {place.name} has shape {tensor.shape}, but the keys ask for {shape}")
        return None
    ranges = place.rows(config, place.expert)
    total = _size(tensor, shape)
    fits = len(tensor.shape) == len(shape) if len(shape) == 1 else tensor.shape[-1] == shape[-1]
    if not fits or any(rows.stop > total for rows in ranges) or sum(map(len, ranges)) != shape[0]:
        raise FormatError(f"{file.where}: {place.name} has shape {tensor.shape}, which does not hold {shape}")
    return ranges


def _check_rest(file: FileTensors, found: Mapping[str, Tensor], rows_used: Counter[str]) -> None:
    for name, tensor in file.tensors.items():
        if name not in rows_used:
            if not file.ignored(name):
                raise UnsupportedError(
                    f"{file.where}: the tensor {name[:80]} is not part of this family as openherd knows it"
                )
            continue
        size = tensor.shape[0] if len(tensor.shape) == 1 else tensor.n_rows
        if rows_used[name] != size:
            raise FormatError(f"{file.where}: {name} has {size} rows, of which the keys ask for {rows_used[name]}")


def _reader(
    file: FileTensors, tensor: Tensor, name: str, ranges: Sequence[range] | None, config: ModelConfig
) -> Callable[[], U8]:
    """How the tensor's raw rows [N, row_bytes] are taken: a view where they lie together in canonical order."""
    reorder = file.interleaved and is_rotary(name)
    if ranges is None and not reorder:
        return tensor.rows

    def rows() -> U8:
        raw = tensor.rows()
        is_vector = len(tensor.shape) == 1
        if is_vector:
            raw = raw.reshape(tensor.shape[0], tensor.type.block_bytes)  # an element is a row here
        if ranges is not None:
            pieces = [raw[part.start : part.stop] for part in ranges]
            raw = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
        if reorder:
            raw = halves_from_interleaved(raw, config.head_dim)
        return raw.reshape(1, -1) if is_vector else raw

    return rows
