"""Drafters that are right and wrong as a test wants, and an engine that always takes their drafts."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from openherd.engine.engine import Engine
from openherd.engine.pace import RowTimes


class FreeRows(RowTimes):
    """Rows cost nothing, so that every draft is worth checking."""

    def seconds(self, rows: int) -> float:
        return 1.0


def draft_always(engine: Engine) -> None:
    engine._scheduler._speculator.times = FreeRows()


class Knowing:
    """Goes on as the known text that begins like the sequence; every `wrong_every`-th token is another."""

    def __init__(self, texts: Sequence[Sequence[int]], wrong_every: int = 5) -> None:
        self._texts = [list(text) for text in texts]
        self._wrong_every = wrong_every

    def propose(self, ids: Sequence[int], n: int) -> Sequence[int]:
        for text in self._texts:
            if text[: len(ids)] == ids:
                end = len(ids)
                return [t if (end + i) % self._wrong_every else t ^ 1 for i, t in enumerate(text[end : end + n])]
        return ()


class Hostile:
    """Right, wrong, too few, too many and impossible tokens, at random. `follow` knows what comes next."""

    def __init__(self, follow: Callable[[Sequence[int]], int], vocab_size: int, seed: int) -> None:
        self._follow = follow
        self._vocab_size = vocab_size
        self._random = random.Random(seed)

    def propose(self, ids: Sequence[int], n: int) -> Sequence[int]:
        draft: list[int] = []
        truth = list(ids)
        for _ in range(self._random.choice((0, 1, n, n, n, n + 20))):
            right = self._follow(truth)
            truth.append(right)
            others = (right, right, right, right, self._random.randrange(self._vocab_size), -1, -(2**40))
            draft.append(self._random.choice((*others, self._vocab_size, 2**31, 2**70)))
        return draft
