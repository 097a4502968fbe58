"""The pool of KV blocks: who holds which, and which full blocks can be found again by what they contain.

Paged blocks as in Kwon et al. 2023 (PagedAttention), section 4; prefix caching by a chain of hashes. A block's hash
covers the hash of the block before it, so equal hashes mean equal prefixes from the first token on, for the same
tenant and adapter. The hash is cryptographic because prompts are hostile: with a weak one, a stranger could craft
a prompt that finds another's block.

Not covered here: the bytes of the blocks, which belong to the backend.
"""

from __future__ import annotations

import struct
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from hashlib import blake2b


def root_hash(salt: bytes, adapter: int) -> bytes:
    """Parent of a sequence's first block: separates tenants and adapters."""
    return blake2b(struct.pack("<qq", adapter, len(salt)) + salt, digest_size=32).digest()


def block_hash(parent: bytes, ids: Sequence[int]) -> bytes:
    """Hash of a full block holding `ids` that follows the block (or root) hashed `parent`."""
    return blake2b(parent + array("i", ids).tobytes(), digest_size=32).digest()


class BlockPool:
    """Blocks 0..num_blocks-1, each free, held by one or more sequences, or kept for its contents until needed.

    A held block has a reference count of at least one. A block whose last holder lets go stays findable by its hash
    and is evicted, least recently used first, only when no free block is left.
    """

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self.num_evicted = 0
        self.reset()

    def reset(self) -> None:
        """Nobody holds a block, and none is findable."""
        self._refs = [0] * self.num_blocks
        self._free = list(range(self.num_blocks - 1, -1, -1))
        self._kept: OrderedDict[int, None] = OrderedDict()  # unreferenced but findable, oldest first
        self._block_of: dict[bytes, int] = {}
        self._hash_of: dict[int, bytes] = {}

    @property
    def num_free(self) -> int:
        """Blocks that `allocate` can give: free ones and those it may evict."""
        return len(self._free) + len(self._kept)

    def allocate(self) -> int:
        """A block for one holder, its contents undefined. The caller has checked `num_free`."""
        if self._free:
            block = self._free.pop()
        else:
            block, _ = self._kept.popitem(last=False)
            del self._block_of[self._hash_of.pop(block)]
            self.num_evicted += 1
        self._refs[block] = 1
        return block

    def find(self, digest: bytes) -> int | None:
        """The block with these contents, if it is still here; `share` it before anything is allocated."""
        return self._block_of.get(digest)

    def share(self, block: int) -> None:
        """One more holder of a held or kept block."""
        if self._refs[block] == 0:
            del self._kept[block]
        self._refs[block] += 1

    def release(self, blocks: Iterable[int]) -> None:
        """One holder fewer of each. Give a sequence's blocks last first: then its tail is evicted before its head."""
        for block in blocks:
            self._refs[block] -= 1
            if self._refs[block]:
                continue
            if block in self._hash_of:
                self._kept[block] = None
            else:
                self._free.append(block)

    def register(self, block: int, digest: bytes) -> None:
        """Make a full, computed block findable. Of two blocks with equal contents the first stays the findable one."""
        if digest not in self._block_of and block not in self._hash_of:
            self._block_of[digest] = block
            self._hash_of[block] = digest

    def num_refs(self, block: int) -> int:
        return self._refs[block]
