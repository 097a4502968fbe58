"""The block pool under arbitrary use: no block is lost, given twice, or found with other contents."""

from __future__ import annotations

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from openherd.engine.kv_cache import BlockPool, block_hash, root_hash

NUM_BLOCKS = 6


class PoolMachine(RuleBasedStateMachine):
    """Sequences allocate, register, find, share and release; a model of holders and contents says what must be."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = BlockPool(NUM_BLOCKS)
        self.held: Counter[int] = Counter()
        self.contents: dict[int, bytes] = {}  # what a block was registered as, until it is allocated again

    @precondition(lambda self: self.pool.num_free > 0)
    @rule()
    def allocate(self) -> None:
        evicted = self.pool.num_evicted
        unregistered_free = [b for b in range(NUM_BLOCKS) if not self.held[b] and b not in self.contents]
        block = self.pool.allocate()
        assert self.held[block] == 0, "a held block was given away"
        if unregistered_free:
            assert block in unregistered_free, "cached contents were evicted while an empty block was free"
        assert self.pool.num_evicted - evicted == (block in self.contents)
        self.contents.pop(block, None)
        self.held[block] = 1

    @precondition(lambda self: self.held.total() > 0)
    @rule(data=st.data(), name=st.sampled_from([b"a", b"b", b"c", b"d"]))
    def register(self, data: st.DataObject, name: bytes) -> None:
        block = data.draw(st.sampled_from(sorted(self.held.elements())))
        self.pool.register(block, name)
        if block not in self.contents and name not in self.contents.values():
            self.contents[block] = name

    @rule(name=st.sampled_from([b"a", b"b", b"c", b"d"]))
    def find_and_share(self, name: bytes) -> None:
        block = self.pool.find(name)
        assert (block is None) == (name not in self.contents.values())
        if block is not None:
            assert self.contents[block] == name
            self.pool.share(block)
            self.held[block] += 1

    @precondition(lambda self: self.held.total() > 0)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        block = data.draw(st.sampled_from(sorted(self.held.elements())))
        self.pool.release([block])
        self.held[block] -= 1

    @invariant()
    def every_block_is_free_or_held(self) -> None:
        assert self.pool.num_free == sum(not self.held[block] for block in range(NUM_BLOCKS))
        assert all(self.pool.num_refs(block) == self.held[block] for block in range(NUM_BLOCKS))


TestPool = PoolMachine.TestCase
TestPool.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_the_longest_unused_contents_are_evicted_first() -> None:
    pool = BlockPool(3)
    blocks = [pool.allocate() for _ in range(3)]
    for block, name in zip(blocks, (b"a", b"b", b"c"), strict=True):
        pool.register(block, name)
    pool.release(blocks)
    pool.share(blocks[0])  # a was used again
    pool.release([blocks[0]])
    assert pool.allocate() == blocks[1]
    assert pool.find(b"b") is None
    assert pool.find(b"a") == blocks[0]


def test_equal_tokens_hash_alike_only_after_equal_prefixes_of_one_tenant_and_adapter() -> None:
    ids = list(range(16))
    roots = [root_hash(b"", -1), root_hash(b"", 0), root_hash(b"tenant", -1), root_hash(b"tenant\0", -1)]
    hashes = [block_hash(root, ids) for root in roots]
    hashes.append(block_hash(hashes[0], ids))  # the same tokens, one block later
    assert len(set(hashes)) == len(hashes)
    assert block_hash(root_hash(b"tenant", -1), ids) == hashes[2]
