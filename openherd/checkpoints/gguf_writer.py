"""GGUF version 3 files: keys, then tensors one after another. The same input gives the same bytes.

Source: ggml's docs/gguf.md. Only the header is held in memory; each tensor's data comes in chunks when it is written.
Not covered: big-endian files, nested arrays, files split in parts.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from openherd.checkpoints.gguf_header import DEFAULT_ALIGNMENT, MAGIC, MAX_DIMS
from openherd.checkpoints.new_file import OnProgress, Piece, write_new_file
from openherd.checkpoints.string_array import StringArray
from openherd.quant.types import BlockType

U8 = NDArray[np.uint8]
MAX_TENSOR_NAME = 63  # bytes; ggml keeps 64 with the final zero

# The value type of each of NumPy's numbers, which is how a caller chooses one.
_TYPE_OF = {"u1": 0, "i1": 1, "u2": 2, "i2": 3, "u4": 4, "i4": 5, "f4": 6, "b1": 7, "u8": 10, "i8": 11, "f8": 12}
_STRING, _ARRAY = 8, 9
_ALIGNMENT = "general.alignment"


@dataclass(frozen=True, slots=True)
class Encoded:
    """A value as another file has it, type and bytes, so that copying a file's keys changes nothing in them."""

    raw: bytes | memoryview


KeyValue: TypeAlias = (
    "bool | int | float | str | np.generic[Any] | NDArray[Any] | StringArray | Sequence[str] | Encoded"
)


@dataclass(frozen=True, slots=True)
class PlannedTensor:
    """A tensor to be written. `chunks` gives its raw blocks as uint8 arrays, whole rows or not, in row order."""

    name: str
    shape: tuple[int, ...]  # row-major: the last dimension is contiguous
    type: BlockType
    chunks: Callable[[], Iterable[U8]]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape[:-1]) * self.type.row_bytes(self.shape[-1])


def write_gguf(
    path: Path,
    keys: Mapping[str, KeyValue],
    tensors: Sequence[PlannedTensor],
    *,
    progress: OnProgress | None = None,
    resume_key: str | None = None,
    late_keys: Callable[[], Mapping[str, KeyValue]] | None = None,
    new: bool = False,
) -> int:
    """Write a model file, atomically; see `new_file` for `resume_key` and `new`, and for the number returned.

    `late_keys`, asked when the tensors are written, gives values of `keys` that were not known before and take as many
    bytes.

    A key's type is that of a NumPy scalar or array; a plain whole number becomes the first of uint32, int32, uint64
    and int64 that holds it, a plain float float32, a list an array of strings. Tensors are aligned to the key
    `general.alignment`, which may be left out for 32 and is written as uint32, of whatever type a copied one is. Raises
    OutputError when the file cannot be written, ValueError for input that GGUF cannot express.
    """
    alignment = _alignment(keys.get(_ALIGNMENT, DEFAULT_ALIGNMENT))
    if _ALIGNMENT in keys:
        keys = {**keys, _ALIGNMENT: np.uint32(alignment)}
    _check(tensors)
    offsets, end = [], 0
    for tensor in tensors:
        offsets.append(end)
        end += -(-tensor.nbytes // alignment) * alignment

    def head_of(keys: Mapping[str, KeyValue]) -> bytes:
        head = _head(keys, tensors, offsets)
        return bytes(head + bytes(-len(head) % alignment))

    head = head_of(keys)
    pieces = [Piece(t.name, len(head) + o, t.nbytes, t.chunks) for t, o in zip(tensors, offsets, strict=True)]
    return write_new_file(
        path,
        head,
        pieces,
        size=len(head) + end,
        on_progress=progress,
        resume_key=resume_key,
        final_head=None if late_keys is None else lambda: head_of({**keys, **late_keys()}),
        new=new,
    )


def _alignment(value: KeyValue) -> int:
    """A copied key is four bytes of type and a number, of any whole type that a file may have it in."""
    if isinstance(value, Encoded):
        (kind,) = struct.unpack("<I", value.raw[:4])
        code = next((code for code, number in _TYPE_OF.items() if number == kind and code[0] in "ui"), None)
        value = 0 if code is None else np.frombuffer(value.raw[4:], f"<{code}")[0]
    if not isinstance(value, int | np.integer) or value < 8 or value & (value - 1) or value >= 1 << 32:
        raise ValueError(f"the alignment must be a power of two of at least 8, as 32 bits, not {value}")
    return int(value)


def _check(tensors: Sequence[PlannedTensor]) -> None:
    names = set()
    for tensor in tensors:
        if tensor.name in names:
            raise ValueError(f"the tensor {tensor.name} is planned twice")
        if not 1 <= len(tensor.shape) <= MAX_DIMS or min(tensor.shape) < 1:
            raise ValueError(f"{tensor.name}: GGUF has no tensor of shape {tensor.shape}")
        if not 1 <= len(tensor.name.encode()) <= MAX_TENSOR_NAME:
            raise ValueError(f"{tensor.name}: a tensor's name has 1 to {MAX_TENSOR_NAME} bytes")
        names.add(tensor.name)


def _head(keys: Mapping[str, KeyValue], tensors: Sequence[PlannedTensor], offsets: Sequence[int]) -> bytearray:
    out = bytearray(MAGIC + struct.pack("<IQQ", 3, len(tensors), len(keys)))
    for key, value in keys.items():
        _put_text(out, key)
        _put_value(out, key, value)
    for tensor, offset in zip(tensors, offsets, strict=True):
        _put_text(out, tensor.name)
        out += struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *reversed(tensor.shape))
        out += struct.pack("<IQ", tensor.type.ggml_id, offset)
    return out


def _put_text(out: bytearray, text: str) -> None:
    raw = text.encode()
    out += struct.pack("<Q", len(raw))
    out += raw


def _put_value(out: bytearray, key: str, value: KeyValue) -> None:
    if isinstance(value, Encoded):
        out += value.raw
    elif isinstance(value, str):
        out += struct.pack("<I", _STRING)
        _put_text(out, value)
    elif isinstance(value, bool | int | float | np.generic):
        scalar = _scalar(key, value)
        out += struct.pack("<I", _type_of(key, scalar.dtype)) + scalar.tobytes()
    elif isinstance(value, np.ndarray):
        if value.ndim != 1:
            raise ValueError(f"{key}: GGUF has arrays of one dimension, not {value.ndim}")
        out += struct.pack("<IIQ", _ARRAY, _type_of(key, value.dtype), len(value))
        out += value.astype(value.dtype.newbyteorder("<")).tobytes()
    else:
        out += struct.pack("<IIQ", _ARRAY, _STRING, len(value))
        for text in value:
            _put_text(out, text)


def _scalar(key: str, value: bool | int | float | np.generic[Any]) -> NDArray[Any]:
    if isinstance(value, np.generic):
        array = np.asarray(value)
        return array.astype(array.dtype.newbyteorder("<"))
    if isinstance(value, bool):
        return np.array(value, np.bool_)
    if isinstance(value, float):
        return np.array(value, "<f4")
    for code in ("<u4", "<i4", "<u8", "<i8"):
        limits = np.iinfo(code)
        if limits.min <= value <= limits.max:
            return np.array(value, code)
    raise ValueError(f"{key}: {value} does not fit 64 bits")


def _type_of(key: str, dtype: np.dtype[Any]) -> int:
    kind = f"{dtype.kind}{dtype.itemsize}"
    if kind not in _TYPE_OF:
        raise ValueError(f"{key}: GGUF has no numbers of type {dtype}")
    return _TYPE_OF[kind]
