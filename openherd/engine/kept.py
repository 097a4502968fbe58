"""An array that is kept from step to step while its values stay the same, as most do while sequences decode."""

from __future__ import annotations

import numpy as np

from openherd.engine.protocols import I32


class KeptArray:
    """The array of the values last asked for. Whoever gets it must not write to it."""

    def __init__(self) -> None:
        self._last: tuple[list[int], I32] = [], np.empty(0, np.int32)

    def of(self, values: list[int]) -> I32:
        """These values, as the array of the last call if that asked for the same."""
        last, array = self._last
        if values != last:
            array = np.array(values, np.int32)
            self._last = values, array
        return array
