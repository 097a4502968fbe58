"""Which rows of which sequences make up the next step: continuous batching over a paged KV cache.

Decode steps and prefill chunks share one batch (Yu et al. 2022, Orca, section 4; chunks as in Agrawal et al. 2023,
SARATHI). Sequences are admitted in order of arrival and reserve blocks for all their known tokens, so only decoding
can run out of blocks; then the youngest running sequence gives its blocks back and is computed again later.

Nothing deadlocks: a sequence alone always fits the pool, the oldest running one is never preempted for another,
and running sequences never outnumber the rows of a step, so each step advances every running decode.

None of these choices changes what a sequence answers; the backends' arithmetic does not depend on the batch.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Mapping
from collections.abc import Sequence as Tokens
from dataclasses import dataclass, field

from openherd.engine.kv_cache import BlockPool, block_hash, root_hash
from openherd.engine.pace import PrefillPace
from openherd.engine.sequence import Sequence, Status
from openherd.engine.speculate import MAX_DRAFT_ROWS, Speculator
from openherd.stats import EngineStats


@dataclass(slots=True)
class Chunk:
    """Positions [start, end) of one sequence in the next step, and drafted tokens behind them."""

    seq: Sequence
    start: int
    end: int
    first_row: int = 0  # of the batch
    first_logit_row: int = 0
    num_scored: int = 0  # logit rows for prompt log-probabilities; they precede the row that draws
    proposed: Tokens[int] = ()  # what may follow, by the sequence's drafter
    num_drafted: int = 0  # of these, in the step; each is a row that draws
    error: Exception | None = None  # of the sequence's drafter

    @property
    def drafts(self) -> Tokens[int]:
        """Tokens not accepted yet, at positions [end, end + num_drafted)."""
        return self.proposed[: self.num_drafted]

    @property
    def num_rows(self) -> int:
        return self.end - self.start + self.num_drafted

    @property
    def completes(self) -> bool:
        """The chunk reaches the sequence's last known token."""
        return self.end == len(self.seq.ids)

    @property
    def draw_row(self) -> int:
        """Which logit row of the step the sequence draws its next token from; those of the drafts follow."""
        return self.first_logit_row + self.num_scored

    @property
    def scored_ids(self) -> list[int]:
        """The prompt tokens scored by this chunk: each follows the position whose logits score it."""
        first = len(self.seq.prompt_logprobs) + 1
        return self.seq.ids[first : first + self.num_scored]

    @property
    def draws(self) -> bool:
        return self.completes and self.seq.request.generate


@dataclass(slots=True)
class Schedule:
    chunks: list[Chunk] = field(default_factory=list)
    copies: list[tuple[int, int]] = field(default_factory=list)  # blocks (from, to), before the forward
    num_decodes: int = 0  # they come first
    num_drafted: int = 0  # rows of theirs that are drafts


@dataclass(slots=True)
class _Prefix:
    """Computed positions that a sequence can start from: full blocks to share, and one to copy where they end."""

    blocks: list[int]
    num_tokens: int
    partial: int | None = None
    forked: bool = False  # from a sibling's prompt, not from the cache


class Scheduler:
    """Owns the queues and the block pool. `live` maps ids to unfinished sequences, for forks to find their parent."""

    def __init__(
        self,
        pool: BlockPool,
        block_len: int,
        live: Mapping[int, Sequence],
        stats: EngineStats,
        speculator: Speculator,
        *,
        max_seqs: int,
        max_batch_tokens: int,
        max_score_rows: int,
        prefix_caching: bool,
    ) -> None:
        self.waiting: list[Sequence] = []  # both in order of arrival
        self.running: list[Sequence] = []
        self.pace = PrefillPace()
        self._pool = pool
        self._block_len = block_len
        self._live = live
        self._stats = stats
        self._speculator = speculator
        self._max_batch_tokens = max_batch_tokens
        self._max_score_rows = max_score_rows
        self._prefix_caching = prefix_caching
        self._max_seqs = max_seqs
        self._slots = list(range(max_seqs - 1, -1, -1))

    def add(self, seq: Sequence) -> None:
        insort(self.waiting, seq, key=_arrival)

    def remove(self, seq: Sequence) -> None:
        """Take a finished sequence out, wherever it is, and its blocks back."""
        if seq.status is Status.RUNNING:
            self._stop_running(seq)
        elif seq.status is Status.WAITING:
            self.waiting.remove(seq)
        seq.status = Status.FINISHED

    def restart(self) -> None:
        """Begin anew after a step that stopped anywhere: who holds which block is no longer believed.

        Every unfinished sequence waits again with the tokens it has; the prefix cache is lost.
        """
        self._pool.reset()
        self._slots = list(range(self._max_seqs - 1, -1, -1))
        self.running = []
        self.waiting = sorted(self._live.values(), key=_arrival)
        for seq in self.waiting:
            seq.restart()

    def schedule(self) -> Schedule:
        """The next step. Empty only when nothing waits and nothing runs."""
        schedule = Schedule()
        num_preempted = self._stats.num_preemptions
        self._schedule_decodes(schedule)
        self._schedule_drafts(schedule)
        if not self.waiting and schedule.num_decodes == len(self.running):
            return schedule  # no prompt, which is nearly every step
        room = self._max_batch_tokens - schedule.num_decodes - schedule.num_drafted
        num_prompts = len(self.running) - schedule.num_decodes + min(len(self.waiting), len(self._slots))
        rows = self.pace.prefill_rows(schedule.num_decodes, num_prompts, room)
        score_rows = self._max_score_rows - schedule.num_drafted
        for seq in self.running:
            if seq.num_pending > 1 and rows:
                rows, score_rows = self._schedule_prefill(schedule, seq, rows, score_rows)
        if num_preempted == self._stats.num_preemptions:  # else the newcomer would be next to lose its blocks
            self._schedule_admissions(schedule, rows, score_rows)
        return schedule

    def advance(self, chunk: Chunk) -> None:
        """The chunk is in the KV cache: its tokens were accepted earlier, so the blocks it filled become findable."""
        seq = chunk.seq
        seq.num_chunks += 1
        self._stats.num_prompt_tokens += max(0, min(chunk.end, seq.num_prompt) - chunk.start)
        self._stats.num_split_prompts += chunk.completes and seq.num_chunks > 1 and seq.num_generated == 0
        self._set_computed(seq, chunk.end)

    def settle(self, chunk: Chunk) -> None:
        """The sequence has taken in what it drew: accepted drafts are in the KV cache, blocks of others spare."""
        seq = chunk.seq
        if not chunk.num_drafted or seq.status is not Status.RUNNING:
            return
        self._set_computed(seq, len(seq.ids) - 1)
        num_needed = self._num_blocks(len(seq.ids))
        if len(seq.blocks) > num_needed:
            self._pool.release(reversed(seq.blocks[num_needed:]))
            del seq.blocks[num_needed:]
            seq.num_tabled = num_needed - 1  # one fewer, so that the table's row is written again, without them

    def observe(self, schedule: Schedule, seconds: float) -> None:
        """The step took `seconds`."""
        num_rows = sum(chunk.num_rows for chunk in schedule.chunks)
        num_prefill = num_rows - schedule.num_decodes - schedule.num_drafted
        if not schedule.num_drafted:
            self.pace.observe(seconds, schedule.num_decodes, num_prefill)
        if not num_prefill:
            self._speculator.times.observe(num_rows, seconds)

    def _set_computed(self, seq: Sequence, num_computed: int) -> None:
        """Positions up to here are in the KV cache and accepted, so full blocks of them can be found from now on."""
        seq.num_computed = num_computed
        num_full = num_computed // self._block_len
        if self._prefix_caching and seq.num_findable < num_full:
            for i in range(seq.num_findable, num_full):
                self._pool.register(seq.blocks[i], self._hash(seq, i))
            seq.num_findable = num_full

    def gauge(self) -> None:
        """Write down how much waits, runs and is free now."""
        self._stats.num_waiting = len(self.waiting)
        self._stats.num_running = len(self.running)
        self._stats.num_free_blocks = self._pool.num_free
        self._stats.num_evicted_blocks = self._pool.num_evicted

    def _schedule_decodes(self, schedule: Schedule) -> None:
        for seq in tuple(self.running):
            if seq.status is Status.RUNNING and seq.num_pending == 1 and self._grow(seq):
                schedule.chunks.append(Chunk(seq, seq.num_computed, len(seq.ids)))
        schedule.num_decodes = len(schedule.chunks)

    def _schedule_drafts(self, schedule: Schedule) -> None:
        """Let the decodes bring drafts if they are all that runs: beside prompt rows each row costs its arithmetic."""
        if schedule.num_decodes < len(self.running) or not schedule.num_decodes:
            return
        # A scored prompt that is admitted in this step finds at least half of the score rows.
        room = min(self._max_batch_tokens - schedule.num_decodes, self._max_score_rows // 2, MAX_DRAFT_ROWS)
        self._speculator.plan(schedule.chunks, room)
        for chunk in schedule.chunks:
            self._fit_drafts(chunk)
            schedule.num_drafted += chunk.num_drafted

    def _fit_drafts(self, chunk: Chunk) -> None:
        """Blocks for the drafts, as far as each running sequence is left one; nobody gives way for a guess."""
        blocks = chunk.seq.blocks
        while len(blocks) < self._num_blocks(chunk.end + chunk.num_drafted):
            if self._pool.num_free <= len(self.running):
                chunk.num_drafted = len(blocks) * self._block_len - chunk.end
                return
            blocks.append(self._pool.allocate())

    def _schedule_prefill(self, schedule: Schedule, seq: Sequence, rows: int, score_rows: int) -> tuple[int, int]:
        """Add the sequence's next chunk; returns the rows and score rows left."""
        start, end = seq.num_computed, min(len(seq.ids), seq.num_computed + rows)
        num_scored = 0
        if seq.request.prompt_logprobs:
            scored_from = max(start, len(seq.prompt_logprobs))
            if min(end, seq.num_prompt - 1) - scored_from > score_rows:
                end = scored_from + score_rows
            num_scored = max(0, min(end, seq.num_prompt - 1) - scored_from)
        if end > start:
            schedule.chunks.append(Chunk(seq, start, end, num_scored=num_scored))
        return rows - (end - start), score_rows - num_scored

    def _schedule_admissions(self, schedule: Schedule, rows: int, score_rows: int) -> None:
        for seq in tuple(self.waiting) if self._slots and rows else ():  # the line may be long
            if not rows or not self._slots:
                return
            if self._awaits_parent(seq):
                continue
            if not self._admit(seq, schedule):
                return
            rows, score_rows = self._schedule_prefill(schedule, seq, rows, score_rows)

    def _admit(self, seq: Sequence, schedule: Schedule) -> bool:
        """Give the sequence blocks for all its known tokens, or none."""
        prefix = self._find_prefix(seq)
        for block in prefix.blocks:
            self._pool.share(block)
        needed = self._num_blocks(len(seq.ids)) - len(prefix.blocks)
        # One block of headroom for each running sequence, lest the newcomer be preempted at once.
        if self._pool.num_free < needed + len(self.running):
            self._pool.release(reversed(prefix.blocks))
            return False
        seq.blocks = prefix.blocks + [self._pool.allocate() for _ in range(needed)]
        seq.num_computed = prefix.num_tokens
        seq.num_findable = len(prefix.blocks)
        if prefix.partial is not None:
            schedule.copies.append((prefix.partial, seq.blocks[len(prefix.blocks)]))
        self._stats.num_forks += prefix.forked
        self._start_running(seq)
        return True

    def _find_prefix(self, seq: Sequence) -> _Prefix:
        """The longest computed prefix to be had; the sequence's last token is always left to compute."""
        if seq.needs_every_row:
            return _Prefix([], 0)
        cached = self._cached_prefix(seq)
        parent = self._parent(seq)
        num_shared = seq.num_prompt - 1
        if parent is None or not num_shared or cached.num_tokens > num_shared:
            return cached
        num_full, rest = divmod(num_shared, self._block_len)
        partial = parent.blocks[num_full] if rest else None
        return _Prefix(parent.blocks[:num_full], num_shared, partial, forked=True)

    def _cached_prefix(self, seq: Sequence) -> _Prefix:
        """The run of findable blocks that the sequence begins with."""
        blocks: list[int] = []
        if self._prefix_caching:
            for i in range((len(seq.ids) - 1) // self._block_len):
                block = self._pool.find(self._hash(seq, i))
                if block is None:
                    break
                blocks.append(block)
        return _Prefix(blocks, len(blocks) * self._block_len)

    def _hash(self, seq: Sequence, i: int) -> bytes:
        """The hash of the sequence's i-th full block; those before it are known, as blocks are hashed in order."""
        hashes = seq.block_hashes
        if i == len(hashes):
            parent = hashes[-1] if hashes else root_hash(seq.request.salt, seq.request.adapter)
            hashes.append(block_hash(parent, seq.ids[i * self._block_len : (i + 1) * self._block_len]))
        return hashes[i]

    def _parent(self, seq: Sequence) -> Sequence | None:
        """The sequence whose prompt's blocks this one may share, while it lives."""
        fork_of = seq.request.fork_of
        return None if fork_of is None or seq.needs_every_row else self._live.get(fork_of)

    def _awaits_parent(self, seq: Sequence) -> bool:
        parent = self._parent(seq)
        return parent is not None and parent.num_computed < seq.num_prompt - 1

    def _grow(self, seq: Sequence) -> bool:
        """A block for the token about to be computed; false if the sequence itself had to give way."""
        while len(seq.blocks) < self._num_blocks(len(seq.ids)):
            if self._pool.num_free:
                seq.blocks.append(self._pool.allocate())
                continue
            youngest = self.running[-1]
            self._preempt(youngest)
            if youngest is seq:
                return False
        return True

    def _preempt(self, seq: Sequence) -> None:
        self._stop_running(seq)
        self.add(seq)
        self._stats.num_preemptions += 1

    def _start_running(self, seq: Sequence) -> None:
        self.waiting.remove(seq)
        insort(self.running, seq, key=_arrival)
        seq.status = Status.RUNNING
        seq.slot = self._slots.pop()
        seq.num_chunks = 0
        if not seq.was_admitted:
            seq.was_admitted = True
            seq.num_cached = seq.num_computed
            self._stats.num_cached_tokens += seq.num_cached

    def _stop_running(self, seq: Sequence) -> None:
        self.running.remove(seq)
        self._slots.append(seq.slot)
        self._pool.release(reversed(seq.blocks))
        seq.restart()

    def _num_blocks(self, num_tokens: int) -> int:
        return -(-num_tokens // self._block_len)


def _arrival(seq: Sequence) -> int:
    return seq.id
