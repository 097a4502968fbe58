"""Where one tensor lies in a mapped file, whatever the file's format."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from openherd.quant.types import BlockType

U8 = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A checked place: the file's reader has made sure that it lies inside the file and is whole blocks."""

    name: str  # as the file spells it
    shape: tuple[int, ...]  # row-major: the last dimension is contiguous
    type: BlockType
    offset: int  # bytes from the start of the file
    nbytes: int

    def rows(self, file: U8) -> U8:
        """The raw blocks as [N, row_bytes], a view of the file's bytes."""
        return file[self.offset : self.offset + self.nbytes].reshape(-1, self.type.row_bytes(self.shape[-1]))
