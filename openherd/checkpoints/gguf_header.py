"""The header of a GGUF file: its keys and where its tensors lie. No tensor data is touched, no string array decoded.

Source: ggml's docs/gguf.md, versions 2 and 3, little-endian. A file is hostile input: what it says is checked before
it is used, so that a refusal takes less than a second and less memory than twice the file and 64 MiB. Not covered:
version 1, big-endian files, nested arrays. Parts of a split file are read one by one (`gguf_parts` joins them).
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from openherd.checkpoints.gguf_cursor import Cursor, Value
from openherd.checkpoints.mapped_file import map_file
from openherd.checkpoints.tensor_info import TensorInfo
from openherd.errors import UnsupportedError
from openherd.quant.types import BLOCK_TYPES, BLOCK_TYPES_BY_ID, BlockType

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32

# Well above what models need: Llama 3.1 405B has 1,138 tensors and about 40 keys.
MAX_KEYS = 1 << 14
MAX_TENSORS = 1 << 16
MAX_ALIGNMENT = 1 << 16
MAX_DIMS = 4

# Types that ggml has and openherd does not read, so that a refusal can name them.
_UNREAD_TYPES = {
    9: "Q8_1", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 21: "IQ3_S", 22: "IQ2_S",
    23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0",
    40: "NVFP4",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class GGUFHeader:
    """Keys and tensor places of one file, and the file itself as mapped bytes."""

    path: Path
    version: int
    keys: dict[str, Value]
    tensors: dict[str, TensorInfo]
    data: NDArray[np.uint8]
    file: mmap.mmap
    key_places: dict[str, tuple[int, int]]  # where each key's type and value lie: bytes from, to


def read_header(path: Path) -> GGUFHeader:
    """Parse and check the header of `path`.

    Raises FormatError naming the file, the byte and the key; UnsupportedError for a version, byte order or tensor
    type that is not read; ModelNotFoundError when there is no such file.
    """
    cursor = Cursor(path, map_file(path))
    version = _version(cursor)
    num_tensors = cursor.count("tensors", least_bytes=24, limit=MAX_TENSORS)
    num_keys = cursor.count("keys", least_bytes=13, limit=MAX_KEYS)
    keys, places = _keys(cursor, num_keys)
    alignment = _alignment(cursor, keys)
    return GGUFHeader(path, version, keys, _tensors(cursor, num_tensors, alignment), cursor.bytes, cursor.data, places)


def _version(cursor: Cursor) -> int:
    if cursor.data[:4] != MAGIC:
        cursor.fail("not a GGUF file (it does not begin with 'GGUF')")
    cursor.pos = 4
    version: int = cursor.scalar("I")
    if version and version & 0xFFFF == 0:
        raise UnsupportedError(f"{cursor.path} is a big-endian GGUF file; openherd reads little-endian ones")
    if version not in VERSIONS:
        raise UnsupportedError(f"{cursor.path} has GGUF version {version}; openherd reads versions 2 and 3")
    return version


def _keys(cursor: Cursor, count: int) -> tuple[dict[str, Value], dict[str, tuple[int, int]]]:
    keys: dict[str, Value] = {}
    places: dict[str, tuple[int, int]] = {}
    for _ in range(count):
        cursor.at = ""
        key = cursor.name()
        if key in keys:
            cursor.fail(f"the key {key!r} stands twice")
        cursor.at = key
        start = cursor.pos
        keys[key] = cursor.value(cursor.scalar("I"))
        places[key] = (start, cursor.pos)
    return keys, places


def _alignment(cursor: Cursor, keys: dict[str, Value]) -> int:
    cursor.at = "general.alignment"
    alignment = keys.get("general.alignment", DEFAULT_ALIGNMENT)
    if type(alignment) is not int:
        cursor.fail("the alignment is not a whole number")
    if not 8 <= alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
        cursor.fail(f"the alignment must be a power of two from 8 to {MAX_ALIGNMENT}, not {alignment}")
    return alignment


def _tensors(cursor: Cursor, count: int, alignment: int) -> dict[str, TensorInfo]:
    relative: dict[str, TensorInfo] = {}
    for _ in range(count):
        cursor.at = ""
        info = _tensor(cursor, alignment)
        if info.name in relative:
            cursor.fail("the tensor stands twice")
        relative[info.name] = info
    data_start = -(-cursor.pos // alignment) * alignment
    tensors = {name: TensorInfo(name, t.shape, t.type, data_start + t.offset, t.nbytes) for name, t in relative.items()}
    _check_places(cursor, tensors)
    return tensors


def _tensor(cursor: Cursor, alignment: int) -> TensorInfo:
    """One entry; its offset is still relative to the start of the data."""
    name = cursor.name()
    cursor.at = f"tensor {name!r}"
    num_dims: int = cursor.scalar("I")
    if num_dims > MAX_DIMS:
        cursor.fail(f"{num_dims} dimensions are more than {MAX_DIMS}")
    dims: list[int] = [cursor.scalar("Q") for _ in range(num_dims)]
    num_values = 1
    for size in dims:
        num_values *= size
    if not 0 < num_values < 1 << 63:
        cursor.fail(f"dimensions {dims} do not multiply to a size from 1 to 2^63 - 1")
    block_type = _block_type(cursor, cursor.scalar("I"))
    shape = tuple(reversed(dims)) or (1,)
    if shape[-1] % block_type.block_len:
        cursor.fail(f"rows of {shape[-1]} values are not whole blocks of {block_type.name}")
    offset: int = cursor.scalar("Q")
    if offset % alignment:
        cursor.fail(f"offset {offset} is not a multiple of the alignment, {alignment}")
    return TensorInfo(name, shape, block_type, offset, num_values // shape[-1] * block_type.row_bytes(shape[-1]))


def _block_type(cursor: Cursor, type_id: int) -> BlockType:
    block_type = BLOCK_TYPES_BY_ID.get(type_id)
    if block_type is None:
        name = _UNREAD_TYPES.get(type_id, f"number {type_id}")
        raise UnsupportedError(f"{cursor.path}: {cursor.at} has type {name}; openherd reads {', '.join(BLOCK_TYPES)}")
    return block_type


def _check_places(cursor: Cursor, tensors: dict[str, TensorInfo]) -> None:
    """Every tensor lies inside the file, and no two share a byte."""
    last_end, last_name = 0, ""
    for info in sorted(tensors.values(), key=lambda t: t.offset):
        cursor.at = f"tensor {info.name!r}"
        if info.offset + info.nbytes > cursor.size:
            cursor.pos = info.offset
            cursor.fail(f"its {info.nbytes} bytes go past the end of the file, which has {cursor.size}")
        if info.offset < last_end:
            cursor.pos = info.offset
            cursor.fail(f"it overlaps tensor {last_name!r}")
        last_end, last_name = info.offset + info.nbytes, info.name
