"""The strings of a GGUF array, decoded when they are asked for."""

from __future__ import annotations

import mmap
from array import array
from collections.abc import Iterator, Sequence
from struct import Struct
from typing import overload

import numpy as np

from openherd.errors import FormatError

U64 = Struct("<Q")


class StringArray(Sequence[str]):
    """A sequence over mapped memory: 8 bytes a string are kept, however long the vocabulary.

    Each string lies as its length, 64 bits, then its UTF-8 bytes. `offsets` are where the lengths begin, checked by
    the header's reader. Taking a string raises FormatError when its bytes are not UTF-8.
    """

    __slots__ = ("_data", "_offsets", "_where")

    def __init__(self, data: mmap.mmap, offsets: array[int], where: str) -> None:
        self._data = data
        self._offsets = offsets
        self._where = where  # file and key, for messages

    def __len__(self) -> int:
        return len(self._offsets)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self._decode(offset) for offset in self._offsets[index]]
        return self._decode(self._offsets[index])

    def __iter__(self) -> Iterator[str]:
        return iter(self._together() or map(self._decode, self._offsets))

    def __repr__(self) -> str:
        return f"<{len(self)} strings of {self._where}>"

    def _together(self) -> list[str] | None:
        """All strings, in about half of the time of one by one: decoded as one text with NULs between, then cut.

        None when a string holds a NUL itself or is not UTF-8.
        """
        if not self._offsets:
            return []
        start, last = self._offsets[0], self._offsets[-1]
        end = last + U64.size + U64.unpack_from(self._data, last)[0]
        text = np.frombuffer(self._data[start:end], np.uint8).copy()
        lengths = np.array(self._offsets, np.int64) - start
        kept = np.ones(len(text), np.bool_)
        for byte in range(U64.size - 1):
            kept[lengths + byte] = False
        text[lengths + U64.size - 1] = 0
        try:
            strings = text[kept].tobytes().decode().split("\0")
        except UnicodeDecodeError:
            return None
        return strings[1:] if len(strings) == len(self) + 1 else None

    def _decode(self, offset: int) -> str:
        start = offset + U64.size
        raw = self._data[start : start + U64.unpack_from(self._data, offset)[0]]
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise FormatError(f"{self._where}: byte {start + error.start}: not UTF-8") from None
