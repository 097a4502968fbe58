"""The tensor types of Llama-family files: how many values a block holds and how many bytes it takes.

Names and ids are ggml's, because GGUF files spell them so.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BlockType:
    """One storage type: a row of n values takes n / block_len * block_bytes bytes, n a multiple of block_len."""

    name: str
    ggml_id: int
    block_len: int
    block_bytes: int

    def row_bytes(self, n_values: int) -> int:
        """Bytes of a row of `n_values`. Raises ValueError when the row does not end on a block's end."""
        n_blocks, rest = divmod(n_values, self.block_len)
        if rest:
            raise ValueError(f"{self.name} rows hold a multiple of {self.block_len} values, not {n_values}")
        return n_blocks * self.block_bytes

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.block_bytes / self.block_len


BLOCK_TYPES: dict[str, BlockType] = {
    t.name: t
    for t in (
        BlockType("F32", 0, 1, 4),
        BlockType("F16", 1, 1, 2),
        BlockType("Q4_0", 2, 32, 18),
        BlockType("Q4_1", 3, 32, 20),
        BlockType("Q5_0", 6, 32, 22),
        BlockType("Q5_1", 7, 32, 24),
        BlockType("Q8_0", 8, 32, 34),
        BlockType("Q2_K", 10, 256, 84),
        BlockType("Q3_K", 11, 256, 110),
        BlockType("Q4_K", 12, 256, 144),
        BlockType("Q5_K", 13, 256, 176),
        BlockType("Q6_K", 14, 256, 210),
        BlockType("IQ4_NL", 20, 32, 18),
        BlockType("BF16", 30, 1, 2),
        BlockType("MXFP4", 39, 32, 17),
    )
}
PLAIN_TYPES = ("F32", "F16", "BF16")
"""Types of single numbers: nothing of a block's coding is in them."""
BLOCK_TYPES_BY_ID: dict[int, BlockType] = {t.ggml_id: t for t in BLOCK_TYPES.values()}
