"""The header of a GGUF file: its keys and where its tensors lie. No tensor data is touched, no string array decoded.

Source: ggml's docs/gguf.md, versions 2 and 3, little-endian. A file is hostile input: every count is compared with
the bytes that remain, and with the limits below, before anything is made of it, so that a refusal takes less than a
second and less memory than twice the file and 64 MiB. Not covered: version 1, big-endian files, nested arrays,
files split in parts.
"""

from __future__ import annotations

import mmap
import struct
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

import numpy as np
from numpy.typing import NDArray

from openherd.checkpoints.mapped_file import map_file
from openherd.checkpoints.string_array import U64, StringArray
from openherd.errors import FormatError, UnsupportedError
from openherd.quant.types import BLOCK_TYPES, BLOCK_TYPES_BY_ID, BlockType

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32

# Well above what models need: Llama 3.1 405B has 1,138 tensors; the greatest vocabularies have 262,144 tokens or
# 650,000 tokens and merges together; chat templates are tens of kilobytes.
MAX_KEYS = 1 << 14
MAX_TENSORS = 1 << 16
MAX_STRINGS = 1 << 20  # in all arrays together
MAX_TEXT = 8 << 20  # bytes of keys, names and single strings together
MAX_ARRAY_LEN = 1 << 24  # numbers in one array
MAX_ALIGNMENT = 1 << 16
MAX_DIMS = 4

Value: TypeAlias = int | float | bool | str | NDArray[Any] | StringArray

# Value type ids and their codes in `struct`, which NumPy shares.
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 10: "Q", 11: "q", 12: "d"}
_BOOL, _STRING, _ARRAY = 7, 8, 9

# Types that ggml has and openherd does not read, so that a refusal can name them.
_UNREAD_TYPES = {
    9: "Q8_1", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 21: "IQ3_S", 22: "IQ2_S",
    23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0",
    40: "NVFP4",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where one tensor lies. `shape` is row-major: GGUF's dimensions reversed."""

    name: str
    shape: tuple[int, ...]
    type: BlockType
    offset: int  # bytes from the start of the file
    nbytes: int


@dataclass(frozen=True, slots=True)
class GGUFHeader:
    """Keys and tensor places of one file, and the file itself as mapped bytes."""

    path: Path
    version: int
    keys: dict[str, Value]
    tensors: dict[str, TensorInfo]
    data: NDArray[np.uint8]

    def blocks(self, info: TensorInfo) -> NDArray[np.uint8]:
        """The tensor's raw blocks as [N, row_bytes], a view of the map."""
        raw = self.data[info.offset : info.offset + info.nbytes]
        return raw.reshape(-1, info.type.row_bytes(info.shape[-1]))


def read_header(path: Path) -> GGUFHeader:
    """Parse and check the header of `path`.

    Raises FormatError naming the file, the byte and the key; UnsupportedError for a version, byte order or tensor
    type that is not read; ModelNotFoundError when there is no such file.
    """
    return _Parser(path, map_file(path)).parse()


class _Parser:
    """A cursor over the mapped file. `at` is the key or tensor being read, for messages."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path = path
        self.data = data
        self.bytes = np.frombuffer(data, np.uint8)
        self.size = len(data)
        self.pos = 0
        self.at = ""
        self.num_strings = 0
        self.num_text_bytes = 0

    def parse(self) -> GGUFHeader:
        version = self._version()
        num_tensors = self._count("tensors", least_bytes=24, limit=MAX_TENSORS)
        num_keys = self._count("keys", least_bytes=13, limit=MAX_KEYS)
        keys: dict[str, Value] = {}
        for _ in range(num_keys):
            self.at = ""
            key = self._text()
            if key in keys:
                self._fail(f"key {key!r} stands twice")
            self.at = key
            keys[key] = self._value(self._scalar("I"))
        self.at = "general.alignment"
        alignment = self._alignment(keys)
        self._refuse_parts(keys)
        tensors = self._tensors(num_tensors, alignment)
        return GGUFHeader(self.path, version, keys, tensors, self.bytes)

    def _version(self) -> int:
        if self.data[:4] != MAGIC:
            self._fail("not a GGUF file (it does not begin with 'GGUF')")
        self.pos = 4
        version: int = self._scalar("I")
        if version and version & 0xFFFF == 0:
            raise UnsupportedError(f"{self.path} is a big-endian GGUF file; openherd reads little-endian ones")
        if version not in VERSIONS:
            raise UnsupportedError(f"{self.path} has GGUF version {version}; openherd reads versions 2 and 3")
        return version

    def _alignment(self, keys: dict[str, Value]) -> int:
        alignment = keys.get("general.alignment", DEFAULT_ALIGNMENT)
        if type(alignment) is not int:
            self._fail("the alignment is not a whole number")
        if not 8 <= alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
            self._fail(f"the alignment must be a power of two from 8 to {MAX_ALIGNMENT}, not {alignment}")
        return alignment

    def _refuse_parts(self, keys: dict[str, Value]) -> None:
        parts = keys.get("split.count", 1)
        if parts not in (0, 1):
            raise UnsupportedError(
                f"{self.path} is one of {parts} parts of a model (split.count); openherd reads models of one file",
                hint="join the parts with llama.cpp's `llama-gguf-split --merge`",
            )

    # Numbers, strings and arrays

    def _fail(self, what: str) -> NoReturn:
        at = f"{self.at}: " if self.at else ""
        raise FormatError(f"{self.path}: byte {self.pos}: {at}{what}")

    def _remaining(self) -> int:
        return self.size - self.pos

    def _scalar(self, code: str) -> Any:
        """One little-endian number of struct's type `code`."""
        try:
            (value,) = struct.unpack_from("<" + code, self.data, self.pos)
        except struct.error:
            self._fail("the file ends inside its header")
        self.pos += struct.calcsize("<" + code)
        return value

    def _count(self, what: str, *, least_bytes: int, limit: int) -> int:
        """A 64-bit count of things that take at least `least_bytes` each."""
        count: int = self._scalar("Q")
        if count > self._remaining() // least_bytes:
            self._fail(f"{count} {what} cannot fit the {self._remaining()} bytes that remain")
        if count > limit:
            self._fail(f"{count} {what} are more than the limit of {limit}")
        return count

    def _text(self) -> str:
        length = self._count("characters", least_bytes=1, limit=MAX_TEXT)
        self.num_text_bytes += length
        if self.num_text_bytes > MAX_TEXT:
            self._fail(f"keys, names and strings take more than {MAX_TEXT >> 20} MiB")
        raw = self.data[self.pos : self.pos + length]
        try:
            text = raw.decode()
        except UnicodeDecodeError as error:
            self.pos += error.start
            self._fail("not UTF-8")
        self.pos += length
        return text

    def _value(self, value_type: int) -> Value:
        if value_type == _STRING:
            return self._text()
        if value_type == _ARRAY:
            return self._array()
        if value_type == _BOOL:
            return self._bool(self._scalar("B"))
        value: int | float = self._scalar(self._number_code(value_type))
        return value

    def _bool(self, value: int) -> bool:
        if value > 1:
            self._fail(f"a truth value must be 0 or 1, not {value}")
        return bool(value)

    def _number_code(self, value_type: int) -> str:
        code = _NUMBERS.get(value_type)
        if code is None:
            self._fail(f"unknown value type {value_type}")
        return code

    def _array(self) -> Value:
        element_type: int = self._scalar("I")
        if element_type == _STRING:
            return self._strings()
        if element_type == _ARRAY:
            raise UnsupportedError(f"{self.path}: {self.at} is an array of arrays, which openherd does not read")
        code = "B" if element_type == _BOOL else self._number_code(element_type)
        dtype = np.dtype("<" + code)
        count = self._count("numbers", least_bytes=dtype.itemsize, limit=MAX_ARRAY_LEN)
        end = self.pos + count * dtype.itemsize
        values = self.bytes[self.pos : end].view(dtype)
        if element_type == _BOOL:
            self._bool(int(values.max(initial=0)))
            values = values.view(np.bool_)
        self.pos = end
        return values

    def _strings(self) -> StringArray:
        """Walk from length to length: only the lengths are read."""
        count = self._count("strings", least_bytes=8, limit=MAX_STRINGS - self.num_strings)
        self.num_strings += count
        offsets: array[int] = array("Q")
        append: Callable[[int], None] = offsets.append
        length_at = U64.unpack_from
        data, pos, end = self.data, self.pos, self.size
        try:
            for _ in range(count):
                append(pos)
                pos += 8 + length_at(data, pos)[0]
        except (struct.error, OverflowError):  # a length led outside the file
            pos = end + 1
        if pos > end:
            self.pos = offsets[-1]
            self._fail(f"string {len(offsets) - 1} goes past the end of the file")
        self.pos = pos
        return StringArray(data, offsets, f"{self.path}: {self.at}")

    # Tensors

    def _tensors(self, count: int, alignment: int) -> dict[str, TensorInfo]:
        relative: dict[str, TensorInfo] = {}
        for _ in range(count):
            self.at = ""
            info = self._tensor(alignment)
            if info.name in relative:
                self._fail("the tensor stands twice")
            relative[info.name] = info
        data_start = -(-self.pos // alignment) * alignment
        tensors = {
            name: TensorInfo(name, t.shape, t.type, data_start + t.offset, t.nbytes) for name, t in relative.items()
        }
        self._check_places(tensors)
        return tensors

    def _tensor(self, alignment: int) -> TensorInfo:
        """One entry; its offset is still relative to the start of the data."""
        name = self._text()
        self.at = f"tensor {name!r}"
        num_dims: int = self._scalar("I")
        if num_dims > MAX_DIMS:
            self._fail(f"{num_dims} dimensions are more than {MAX_DIMS}")
        dims: list[int] = [self._scalar("Q") for _ in range(num_dims)]
        num_values = 1
        for size in dims:
            num_values *= size
        if not 0 < num_values < 1 << 63:
            self._fail(f"dimensions {dims} do not multiply to a size from 1 to 2^63 - 1")
        block_type = self._block_type(self._scalar("I"))
        shape = tuple(reversed(dims)) or (1,)
        if shape[-1] % block_type.block_len:
            self._fail(f"rows of {shape[-1]} values are not whole blocks of {block_type.name}")
        offset: int = self._scalar("Q")
        if offset % alignment:
            self._fail(f"offset {offset} is not a multiple of the alignment, {alignment}")
        return TensorInfo(name, shape, block_type, offset, num_values // shape[-1] * block_type.row_bytes(shape[-1]))

    def _block_type(self, type_id: int) -> BlockType:
        block_type = BLOCK_TYPES_BY_ID.get(type_id)
        if block_type is None:
            name = _UNREAD_TYPES.get(type_id, f"number {type_id}")
            raise UnsupportedError(f"{self.path}: {self.at} has type {name}; openherd reads {', '.join(BLOCK_TYPES)}")
        return block_type

    def _check_places(self, tensors: dict[str, TensorInfo]) -> None:
        """Every tensor lies inside the file, and no two share a byte."""
        last_end, last_name = 0, ""
        for info in sorted(tensors.values(), key=lambda t: t.offset):
            self.at = f"tensor {info.name!r}"
            if info.offset + info.nbytes > self.size:
                self.pos = info.offset
                self._fail(f"its {info.nbytes} bytes go past the end of the file, which has {self.size}")
            if info.offset < last_end:
                self.pos = info.offset
                self._fail(f"it overlaps tensor {last_name!r}")
            last_end, last_name = info.offset + info.nbytes, info.name
