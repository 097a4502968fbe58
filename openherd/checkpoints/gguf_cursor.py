"""The values of a GGUF header, read one after another from mapped memory.

Source: ggml's docs/gguf.md, "File Structure". Every count is compared with the bytes that remain, and with the
limits below, before anything is made of it. Arrays of numbers stay views of the file, arrays of strings are walked
from length to length and not decoded.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

import numpy as np
from numpy.typing import NDArray

from openherd import _native
from openherd.checkpoints.string_array import U64, StringArray
from openherd.errors import FormatError, UnsupportedError

# Well above what models need: the greatest vocabularies have 262,144 tokens, or 650,000 tokens and merges together;
# chat templates are tens of kilobytes.
MAX_STRINGS = 1 << 20  # in all arrays together
MAX_NAME = 512  # bytes of one key or tensor name
MAX_TEXT = 8 << 20  # bytes of keys, names and single strings together
MAX_ARRAY_LEN = 1 << 24  # numbers in one array

Value: TypeAlias = int | float | bool | str | NDArray[Any] | StringArray

# Value type ids and their codes in `struct`, which NumPy shares.
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 10: "Q", 11: "q", 12: "d"}
_BOOL, _STRING, _ARRAY = 7, 8, 9


class Cursor:
    """A place in the mapped file. `at` is the key or tensor being read, for messages."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path = path
        self.data = data
        self.bytes = np.frombuffer(data, np.uint8)
        self.size = len(data)
        self.pos = 0
        self.at = ""
        self._num_strings = 0
        self._num_text_bytes = 0

    def fail(self, what: str) -> NoReturn:
        at = f"{self.at if self.at.isprintable() else ascii(self.at)}: " if self.at else ""
        raise FormatError(f"{self.path}: byte {self.pos}: {at}{what}")

    def _remaining(self) -> int:
        return self.size - self.pos

    def scalar(self, code: str) -> Any:
        """One little-endian number of struct's type `code`."""
        try:
            (value,) = struct.unpack_from("<" + code, self.data, self.pos)
        except struct.error:
            self.fail("the file ends inside its header")
        self.pos += struct.calcsize("<" + code)
        return value

    def count(self, what: str, *, least_bytes: int, limit: int) -> int:
        """A 64-bit count of things that take at least `least_bytes` each."""
        count: int = self.scalar("Q")
        if count > self._remaining() // least_bytes:
            self.fail(f"{count} {what} cannot fit the {self._remaining()} bytes that remain")
        if count > limit:
            self.fail(f"{count} {what} are more than the limit of {limit}")
        return count

    def name(self) -> str:
        """A key or the name of a tensor."""
        name = self.text(limit=MAX_NAME)
        if not name:
            self.fail("a name is empty")
        return name

    def text(self, *, limit: int = MAX_TEXT) -> str:
        """A string of at most `limit` bytes of UTF-8."""
        length = self.count("bytes of text", least_bytes=1, limit=limit)
        self._num_text_bytes += length
        if self._num_text_bytes > MAX_TEXT:
            self.fail(f"keys, names and strings take more than {MAX_TEXT >> 20} MiB")
        raw = self.data[self.pos : self.pos + length]
        try:
            text = raw.decode()
        except UnicodeDecodeError as error:
            self.pos += error.start
            self.fail("not UTF-8")
        self.pos += length
        return text

    def value(self, value_type: int) -> Value:
        if value_type == _STRING:
            return self.text()
        if value_type == _ARRAY:
            return self._array()
        if value_type == _BOOL:
            return self._bool(self.scalar("B"))
        value: int | float = self.scalar(self._number_code(value_type))
        return value

    def _bool(self, value: int) -> bool:
        if value > 1:
            self.fail(f"a truth value must be 0 or 1, not {value}")
        return bool(value)

    def _number_code(self, value_type: int) -> str:
        code = _NUMBERS.get(value_type)
        if code is None:
            self.fail(f"unknown value type {value_type}")
        return code

    def _array(self) -> Value:
        element_type: int = self.scalar("I")
        if element_type == _STRING:
            return self._strings()
        if element_type == _ARRAY:
            raise UnsupportedError(f"{self.path}: {self.at} is an array of arrays, which openherd does not read")
        code = "B" if element_type == _BOOL else self._number_code(element_type)
        dtype = np.dtype("<" + code)
        count = self.count("numbers", least_bytes=dtype.itemsize, limit=MAX_ARRAY_LEN)
        end = self.pos + count * dtype.itemsize
        values = self.bytes[self.pos : end].view(dtype)
        if element_type == _BOOL:
            self._bool(int(values.max(initial=0)))
            values = values.view(np.bool_)
        self.pos = end
        return values

    def _strings(self) -> StringArray:
        """Walk from length to length: only the lengths are read."""
        count = self.count("strings", least_bytes=8, limit=MAX_STRINGS - self._num_strings)
        self._num_strings += count
        starts, whole, end = _native.walk_strings(self.bytes, self.pos, count)
        if whole < count:
            # What leaves no room for the next length is the string before it, as `count` said that all lengths fit.
            number = whole - (end > self.size - U64.size)
            self.pos = int(starts[number]) if number < whole else end
            self.fail(f"string {number} goes past the end of the file")
        self.pos = end
        return StringArray(self.bytes, starts, f"{self.path}: {self.at}")
