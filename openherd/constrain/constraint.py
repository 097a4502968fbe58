"""One answer's way through a grammar: which tokens may come next."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openherd.constrain.bounds import parser_limits
from openherd.constrain.grammar import Grammar
from openherd.constrain.vocabulary import Vocabulary, token_trie
from openherd.errors import EngineError, SchemaError


def compile_grammar(grammar: Grammar, vocabulary: Vocabulary, n_logits: int) -> Constraint:
    """Bind a grammar to a vocabulary; masks have `n_logits` bits.

    Raises `SchemaError` when the grammar is malformed, unsupported or over the bounds (at most 0.2 s and 64 MiB).
    """
    from llguidance import LLMatcher

    matcher = LLMatcher(token_trie(vocabulary, n_logits), grammar.serialized, log_level=0, limits=parser_limits())
    if matcher.is_error():
        raise SchemaError(_explain(matcher.get_error()))
    constraint = Constraint(matcher, n_logits)
    try:
        constraint.fork().next([])
    except EngineError as why:
        raise SchemaError(f"no text fits the grammar, or it is too large: {why}") from None
    return constraint


class Constraint:
    """The state of one answer in its grammar. Not thread-safe; `fork` gives an independent copy."""

    def __init__(self, matcher: Any, n_logits: int) -> None:
        self._matcher = matcher
        self._num_words = -(-n_logits // 32)

    def next(self, ids: Sequence[int]) -> NDArray[np.uint32]:
        """Bits of the tokens that may follow, [ceil(n_logits / 32)]; end tokens only where the text is complete.

        Raises `EngineError` when the grammar is too ambiguous to go on within the step's bounds.
        """
        bits = np.zeros(self._num_words, np.uint32)
        self._matcher.unsafe_compute_mask_ptr(bits.ctypes.data, bits.nbytes)
        self._check()
        return bits

    def accept(self, ids: Sequence[int]) -> None:
        """These tokens were drawn; an end token may be among them."""
        if not self._matcher.consume_tokens(list(ids)):
            self._check()

    def rollback(self, n: int) -> None:
        """Forget the last n accepted tokens."""
        if n:
            self._matcher.rollback(n)
            self._check()

    def fork(self) -> Constraint:
        return Constraint(self._matcher.deep_copy(), 32 * self._num_words)

    @property
    def is_accepting(self) -> bool:
        """Whether the text so far is a complete answer (it may still go on)."""
        return bool(self._matcher.is_accepting())

    @property
    def is_complete(self) -> bool:
        """Whether the text is a complete answer that nothing can follow."""
        return bool(self._matcher.is_stopped()) and not self._matcher.is_error()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise EngineError(f"the grammar cannot go on: {_first_line(self._matcher.get_error())}")


# llguidance's own words for a keyword that it does not enforce.
_UNIMPLEMENTED = re.compile(r'Unimplemented keys: \["([^"]+)"')
_KEYWORD_OF = (
    ("oneOf constraints", "oneOf"),
    ("Unknown format", "format"),
    ("regex parse error", "pattern"),
    ("multipleOf", "multipleOf"),
    ("minProperties", "minProperties"),
    ("patternProperty", "patternProperties"),
    ("Resource", "$ref"),
    ("Pointer", "$ref"),
    ("float range", "minimum/maximum"),
)


def _explain(error: str) -> str:
    """The engine's error with the keyword in front where one is to blame."""
    line = _first_line(error)
    if match := _UNIMPLEMENTED.search(error):
        return f"the schema keyword {match[1]!r} is not supported"
    if "too big" in error or "too large" in error or "assertion" in error:
        return f"the grammar is too large: {line}"
    for words, keyword in _KEYWORD_OF:
        if words in error:
            return f"the schema keyword {keyword!r} cannot be enforced here: {line}"
    return f"the grammar cannot be compiled: {line}"


def _first_line(error: str) -> str:
    """One line of at most 200 characters; a regex error's message stands at its end."""
    lines = [line.strip() for line in error.splitlines() if line.strip()]
    if lines and lines[0].startswith("regex parse error"):
        return lines[-1].removeprefix("error: ")[:200]
    return lines[0].partition("<state>")[0][:200] if lines else "no reason given"
