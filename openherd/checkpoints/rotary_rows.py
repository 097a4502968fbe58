"""The order of query and key rows: GGUF's "llama" files interleave what Hugging Face keeps in halves.

A head's rotation pairs value i with value i + d/2 in Hugging Face's order (d the head's length), and values 2i and
2i + 1 in GGUF's, as in Meta's code. Undoing it moves whole rows, so it works on quantised blocks as on floats.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]


def halves_from_interleaved(rows: U8, head_dim: int) -> U8:
    """Rows [N, row_bytes] in GGUF's order as a copy in Hugging Face's; N is a multiple of `head_dim`, which is even."""
    heads = rows.reshape(-1, head_dim // 2, 2, rows.shape[-1])  # [heads, pair, side, row_bytes]
    return heads.swapaxes(1, 2).reshape(rows.shape)


def is_rotary(name: str) -> bool:
    """Whether the canonical tensor `name` makes queries or keys, whose rows are rotated."""
    return name.rpartition(".")[0].endswith(("self_attn.q_proj", "self_attn.k_proj"))


def interleaved_from_halves(rows: U8, head_dim: int) -> U8:
    """The inverse: rows [N, row_bytes] in Hugging Face's order as a copy in GGUF's."""
    heads = rows.reshape(-1, 2, head_dim // 2, rows.shape[-1])  # [heads, side, pair, row_bytes]
    return heads.swapaxes(1, 2).reshape(rows.shape)
