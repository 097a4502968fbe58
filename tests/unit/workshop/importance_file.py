"""A sound importance matrix, put together from its pieces."""

from __future__ import annotations

import numpy as np

from tests.checkpoint_files import GGUFFile, entry, text, u32


def importance_file() -> GGUFFile:
    """Of one weight with two experts and eight columns."""
    file = GGUFFile(keys={"general.type": text("imatrix"), "imatrix.chunk_count": u32(3)})
    file.tensors = [
        entry("w.in_sum2", np.ones((2, 8), np.float32)),
        entry("w.counts", np.full((2, 1), 5, np.float32)),
    ]
    return file
