"""The tensors of one safetensors file, mapped.

Source: the safetensors format (8 bytes length, a JSON header, the data). Checked before use: the header's length,
its JSON, every name, type, shape and place, and that the tensors fill the data exactly, with no hole, no overlap and
nothing after them. Shards are `hf_weights`' to join. Not covered: integer, boolean, float64 and 8-bit float tensors.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openherd.checkpoints.mapped_file import map_file
from openherd.checkpoints.strict_json import MAX_BYTES, read_json_object
from openherd.checkpoints.tensor_info import TensorInfo
from openherd.errors import FormatError, UnsupportedError
from openherd.quant.types import BLOCK_TYPES, PLAIN_TYPES

_LENGTH = struct.Struct("<Q")
_METADATA = "__metadata__"
_MAX_DIMS = 8


@dataclass(frozen=True, slots=True)
class SafetensorsFile:
    """Tensor places by the file's own names, its strings, and the file itself as mapped bytes."""

    path: Path
    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]
    data: NDArray[np.uint8]
    file: mmap.mmap


def read_safetensors(path: Path) -> SafetensorsFile:
    """Parse and check the header of `path`; no tensor data is touched.

    Raises FormatError naming the file and the tensor, UnsupportedError for a type that is not read, and
    ModelNotFoundError when there is no such file.
    """
    data = map_file(path)
    if len(data) < _LENGTH.size:
        raise FormatError(f"{path}: {len(data)} bytes are too few for a safetensors file")
    (length,) = _LENGTH.unpack_from(data, 0)
    if length > len(data) - _LENGTH.size:
        raise FormatError(f"{path}: a header of {length} bytes goes past the end of the file, which has {len(data)}")
    if length > MAX_BYTES:
        raise FormatError(f"{path}: a header of {length} bytes is more than the limit of {MAX_BYTES}")
    data_start = _LENGTH.size + length
    header = read_json_object(data[_LENGTH.size : data_start], f"{path}: the header")
    metadata = _metadata(path, header.pop(_METADATA, {}))
    tensors = {name: _tensor(path, name, entry, data_start) for name, entry in header.items()}
    _check_places(path, tensors, data_start, len(data))
    return SafetensorsFile(path, tensors, metadata, np.frombuffer(data, np.uint8), data)


def _metadata(path: Path, value: object) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        raise FormatError(f"{path}: {_METADATA} must map strings to strings")
    return value


def _tensor(path: Path, name: str, entry: Any, data_start: int) -> TensorInfo:
    at = f"{path}: tensor {name[:80]!r}"
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise FormatError(f"{at} must have exactly dtype, shape and data_offsets")
    dtype, shape, place = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str):
        raise FormatError(f"{at}: dtype must be a string")
    if dtype not in PLAIN_TYPES:
        raise UnsupportedError(f"{at} has type {dtype[:20]!r}; openherd reads {', '.join(PLAIN_TYPES)}")
    if not _are_sizes(shape) or len(shape) > _MAX_DIMS:
        raise FormatError(f"{at}: shape must be at most {_MAX_DIMS} whole numbers from 0 to 2^63 - 1")
    if not _are_sizes(place) or len(place) != 2:
        raise FormatError(f"{at}: data_offsets must be two whole numbers from 0 to 2^63 - 1")
    block_type = BLOCK_TYPES[dtype]
    num_values = 1
    for size in shape:
        num_values *= size
    if num_values == 0:
        raise UnsupportedError(f"{at} is empty (shape {shape})")
    if place[1] - place[0] != num_values * block_type.block_bytes:
        raise FormatError(f"{at}: data_offsets {place} do not fit shape {shape} of {dtype}")
    return TensorInfo(name, tuple(shape) or (1,), block_type, data_start + place[0], place[1] - place[0])


def _are_sizes(value: object) -> bool:
    return isinstance(value, list) and all(type(size) is int and 0 <= size < 1 << 63 for size in value)


def _check_places(path: Path, tensors: Mapping[str, TensorInfo], start: int, end: int) -> None:
    """The tensors fill the bytes from `start` to `end` one after another."""
    pos = start
    for info in sorted(tensors.values(), key=lambda t: t.offset):
        if info.offset != pos:
            what = "overlaps the one before it" if info.offset < pos else "leaves a hole before it"
            raise FormatError(f"{path}: tensor {info.name[:80]!r} {what} (byte {info.offset}, expected {pos})")
        pos += info.nbytes
    if pos != end:
        what = "the file ends inside its tensors" if pos > end else f"{end - pos} bytes follow the tensors"
        raise FormatError(f"{path}: {what}")
