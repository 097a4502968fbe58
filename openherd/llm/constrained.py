"""A grammar's constraint as the engine's logits processor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from openherd.constrain import Constraint, Grammar
from openherd.engine.protocols import Mask

# A JSON schema, or a grammar of another kind.
Schema: TypeAlias = Mapping[str, Any] | bool | Grammar


def as_grammar(schema: Schema) -> Grammar:
    """Raises `SchemaError` for a schema that cannot be enforced."""
    return schema if isinstance(schema, Grammar) else Grammar.json_schema(schema)


class GrammarProcessor:
    """Lets through only the tokens that the constraint allows."""

    def __init__(self, constraint: Constraint) -> None:
        self.constraint = constraint

    def next(self, ids: Sequence[int]) -> Mask:
        return Mask(self.constraint.next(ids))

    def accept(self, ids: Sequence[int]) -> None:
        self.constraint.accept(ids)

    def rollback(self, n: int) -> None:
        self.constraint.rollback(n)

    def fork(self) -> GrammarProcessor:
        return GrammarProcessor(self.constraint.fork())
