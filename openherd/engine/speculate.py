"""Speculation: several tokens are drafted cheaply, and one step of the model checks them all.

A step of one row waits for memory: it reads all weights for one token. A few more rows cost little, so a decoding
sequence may bring tokens that it guesses to come next as further rows. Row i draws the token that follows the first i
guesses, with that position's own key; guesses are accepted as long as the draws are what was guessed. So what is
accepted is what plain decoding draws, bit for bit, at any temperature, and no probability is corrected. (Leviathan et
al. 2023, "Fast inference from transformers via speculative decoding", accepts by ratios of probabilities instead, which
keeps the distribution but not the tokens.)

Prompt lookup (Saxena 2023): the draft is what followed the longest earlier match of the text's end. It needs no second
model and is right where an answer copies: edits, code, extraction, lists.

Not covered: trees of drafts; drafts of sequences that hidden taps watch, which must not see rows that are taken back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import index
from typing import TYPE_CHECKING, Protocol

from openherd.engine.pace import RowTimes

if TYPE_CHECKING:
    from openherd.engine.scheduler import Chunk

# Most drafted tokens of one sequence in a step. With eight rows a step takes 1.8 (Zen 4) to 4.2 times (Emerald Rapids)
# that of one; sixteen bring no more on the bench's prompts, whose copies are seldom that long.
MAX_DRAFT = 7
# Most drafted rows of a step. They share the step's logit rows with the prompt tokens to be scored.
MAX_DRAFT_ROWS = 32
# With more sequences the arithmetic of their own rows fills the step (at least 3.1 times the time of one row for 16):
# nothing is drafted, and nobody is asked to.
MAX_DRAFTING_SEQS = 16
# Earlier places of the last token that are compared for the longest match; 64 find no better drafts than 16, 4 worse.
MAX_CANDIDATES = 16
# Tokens compared backwards from each: beyond this, one match is as good as another.
MAX_MATCH = 32
# What is believed of a new sequence's drafts: half of two tokens were right. And what a draft's outcome keeps of its
# weight with each that follows: half after seven.
FIRST_RIGHT, FIRST_TESTED = 1.0, 2.0
KEPT = 0.9


class Drafter(Protocol):
    """Guesses how one sequence goes on. Prompt lookup is one; a small model would be another."""

    def propose(self, ids: Sequence[int], n: int) -> Sequence[int]:
        """At most n tokens that may follow `ids`, likeliest path first; empty where it has no guess.

        From call to call `ids` only grows at its end. Wrong guesses cost time and nothing else. An exception, or an
        answer that is no sequence of whole numbers, ends the sequence's own request.
        """


class PromptLookup:
    """Drafts what followed the longest earlier match of the text's end; of equal ones, the latest.

    Places of equal tokens are chained as in LZ77 (Ziv and Lempel 1977), so a new token costs one entry.
    """

    def __init__(self) -> None:
        self._latest: dict[int, int] = {}  # place of each token's latest occurrence, the text's last token excluded
        self._earlier: list[int] = []  # for each place, that of the same token before it; -1 none

    def propose(self, ids: Sequence[int], n: int) -> Sequence[int]:
        self._index(ids)
        place = self._longest_match(ids)
        if place < 0:
            return ()
        draft = list(ids[place + 1 : place + 1 + n])
        while len(draft) < n:  # the match overlaps the end: the text repeats itself
            draft += draft[: n - len(draft)]
        return draft

    def _index(self, ids: Sequence[int]) -> None:
        for place in range(len(self._earlier), len(ids) - 1):
            token = ids[place]
            self._earlier.append(self._latest.get(token, -1))
            self._latest[token] = place

    def _longest_match(self, ids: Sequence[int]) -> int:
        """Where the longest match ends; -1 if the last token is new."""
        end = len(ids) - 1
        best, longest = -1, 0
        place = self._latest.get(ids[end], -1)
        for _ in range(MAX_CANDIDATES):
            if place < 0:
                break
            length = 1
            while length < MAX_MATCH and length <= place and ids[place - length] == ids[end - length]:
                length += 1
            if length > longest:
                best, longest = place, length
            place = self._earlier[place]
        return best


@dataclass(slots=True)
class Speculation:
    """One sequence's drafter, and how often its drafts were right of late."""

    drafter: Drafter
    num_right: float = FIRST_RIGHT
    num_tested: float = FIRST_TESTED

    @property
    def rate(self) -> float:
        """The chance that a drafted token is right when those before it were."""
        return self.num_right / self.num_tested

    def observe(self, proposed: Sequence[int], drawn: Sequence[int]) -> None:
        """These tokens came; a proposal teaches also where it was not checked by the model."""
        for guess, token in zip(proposed, drawn, strict=False):
            right = guess == token
            self.num_right = KEPT * self.num_right + right
            self.num_tested = KEPT * self.num_tested + 1
            if not right:
                return


@dataclass(slots=True)
class Speculator:
    """Decides how many drafts each sequence of a step brings, by what rows cost and how often its drafts are right."""

    make_drafter: Callable[[], Drafter]
    vocab_size: int
    times: RowTimes = field(default_factory=RowTimes)

    def plan(self, chunks: list[Chunk], room: int) -> None:
        """Set the drafts of these decodes, which are all of the step, for at most `room` further rows."""
        drafting = [chunk for chunk in chunks if chunk.seq.speculates]
        if not drafting or len(chunks) > MAX_DRAFTING_SEQS:
            return
        rows = num_tokens = float(len(chunks))
        room = min(room, MAX_DRAFT_ROWS)
        for chunk in drafting:
            try:
                chunk.proposed = self._propose(chunk)
            except Exception as error:
                chunk.error = error
                continue
            most = min(len(chunk.proposed), room)
            chunk.num_drafted, gained = self._best(chunk, most, int(rows), num_tokens)
            rows, num_tokens, room = rows + chunk.num_drafted, num_tokens + gained, room - chunk.num_drafted

    def _propose(self, chunk: Chunk) -> Sequence[int]:
        """What may follow, up to the first token that is none; the last token of an answer needs no draft."""
        seq = chunk.seq
        if seq.speculation is None:
            seq.speculation = Speculation(self.make_drafter())
        proposed = seq.speculation.drafter.propose(seq.ids, MAX_DRAFT)[: min(MAX_DRAFT, seq.max_len - len(seq.ids) - 1)]
        proposed = list(map(index, proposed))
        for i, token in enumerate(proposed):
            if not 0 <= token < self.vocab_size:
                return proposed[:i]
        return proposed

    def _best(self, chunk: Chunk, most: int, rows: int, num_tokens: float) -> tuple[int, float]:
        """How many drafts give the most tokens a second, and how many of them are expected to be right."""
        assert chunk.seq.speculation is not None
        rate = chunk.seq.speculation.rate
        best, gained = 0, 0.0
        speed = num_tokens / self.times.seconds(rows)
        chance, expected = 1.0, 0.0
        for num_drafted in range(1, most + 1):
            chance *= rate
            expected += chance
            faster = (num_tokens + expected) / self.times.seconds(rows + num_drafted)
            if faster > speed:
                best, gained, speed = num_drafted, expected, faster
        return best, gained
