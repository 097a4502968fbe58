"""Stop strings, found across token boundaries.

The answer is cut before the stop string that begins first in the text. Text comes in pieces of any size, and the
result does not depend on where they are cut. Only text that may still become part of a stop string is held back.

Source: Aho and Corasick 1975, "Efficient string matching": one state per prefix of a stop string, so that a
character costs the same however many stop strings there are, and the depth of a state is the length of what must
be held back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(slots=True)
class _State:
    depth: int  # characters of the longest prefix of a stop string that the text ends with
    next: dict[str, _State] = field(default_factory=dict)
    fail: _State | None = None  # the state of the longest proper suffix; None at the root
    stop: str | None = None  # the longest stop string that the text ends with


class StopStrings:
    """The automaton of a set of stop strings. Immutable once built; any number of scanners can use it."""

    def __init__(self, stops: Iterable[str]) -> None:
        self.root = _State(0)
        for stop in stops:
            if not stop:
                raise ValueError("a stop string has at least one character")
            self._add(stop)
        self._link()

    def _add(self, stop: str) -> None:
        state = self.root
        for char in stop:
            state = state.next.setdefault(char, _State(state.depth + 1))
        state.stop = stop

    def _link(self) -> None:
        """Breadth first: a state's failure is shallower than itself, so it is ready when needed."""
        queue = deque(self.root.next.values())
        for state in queue:
            state.fail = self.root
        while queue:
            state = queue.popleft()
            for char, child in state.next.items():
                child.fail = self.step(state.fail, char) if state.fail else self.root
                child.stop = child.stop or child.fail.stop
                queue.append(child)

    def step(self, state: _State, char: str) -> _State:
        """The state after one more character."""
        while char not in state.next:
            if state.fail is None:
                return state
            state = state.fail
        return state.next[char]

    def scanner(self) -> StopScanner:
        return StopScanner(self)


class StopScanner:
    """Reads one answer. `add` returns the text that is certain to stand before any stop string."""

    def __init__(self, stops: StopStrings) -> None:
        self._stops = stops
        self._state = stops.root
        self._held = ""  # read but not returned
        self._num_returned = 0  # characters
        self._num_read = 0
        self._found: tuple[int, str] | None = None  # where the first stop string so far begins, and which it is
        self.match: str | None = None  # the stop string that ended the answer, once that is certain

    @property
    def held(self) -> str:
        """Text that may still become part of a stop string."""
        return self._held

    def add(self, piece: str) -> str:
        """Read a piece; returns nothing more once `match` is set."""
        if not self._stops.root.next:
            return piece
        if self.match is not None:
            return ""
        self._held += piece
        for char in piece:
            self._read(char)
            # A longer stop string that began earlier may still be on its way: only that could move the cut.
            if self._found and self._num_read - self._state.depth >= self._found[0]:
                return self.flush()
        return self._return_until(self._num_read - self._state.depth)

    def flush(self) -> str:
        """The end of the answer: what was held back, up to a stop string if one was found."""
        if self._found is None:
            return self._return_until(self._num_read)
        cut, self.match = self._found
        text = self._return_until(cut)
        self._held, self._found = "", None
        return text

    def _read(self, char: str) -> None:
        self._state = self._stops.step(self._state, char)
        self._num_read += 1
        if self._state.stop is not None:
            start = self._num_read - len(self._state.stop)
            if self._found is None or start < self._found[0]:
                self._found = (start, self._state.stop)

    def _return_until(self, position: int) -> str:
        split = position - self._num_returned
        text, self._held = self._held[:split], self._held[split:]
        self._num_returned = position
        return text
