"""The strings of a GGUF array, decoded when they are asked for.

The compiled core walks and decodes them: a vocabulary and its merges are a hundred thousand strings, which take Python
a tenth of a second of every start.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from struct import Struct
from typing import overload

import numpy as np
from numpy.typing import NDArray

from openherd import _native
from openherd.errors import FormatError

U64 = Struct("<Q")


class StringArray(Sequence[str]):
    """A sequence over mapped memory: 8 bytes a string are kept, however long the vocabulary.

    Each string lies as its length, 64 bits, then its UTF-8 bytes. `starts` are where the lengths begin, checked by
    the header's reader. Taking a string raises FormatError when its bytes are not UTF-8.
    """

    __slots__ = ("_data", "_starts", "_where")

    def __init__(self, data: NDArray[np.uint8], starts: NDArray[np.uint64], where: str) -> None:
        self._data = data
        self._starts = starts
        self._where = where  # file and key, for messages

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return self._decode(np.ascontiguousarray(self._starts[index]))
        return self._decode(self._starts[index, None])[0]

    def __iter__(self) -> Iterator[str]:
        return iter(self._decode(self._starts))

    def __repr__(self) -> str:
        return f"<{len(self)} strings of {self._where}>"

    def _decode(self, starts: NDArray[np.uint64]) -> list[str]:
        try:
            return _native.decode_strings(self._data, starts)
        except UnicodeDecodeError:
            raise self._not_utf8(starts) from None

    def _not_utf8(self, starts: NDArray[np.uint64]) -> FormatError:
        """With the first byte that is not, which the core's error counts from the string it lies in."""
        for start in map(int, starts):
            text = start + U64.size
            length = int.from_bytes(self._data[start:text].tobytes(), "little")
            try:
                self._data[text : text + length].tobytes().decode()
            except UnicodeDecodeError as error:
                return FormatError(f"{self._where}: byte {text + error.start}: not UTF-8")
        raise AssertionError("every string is UTF-8")
