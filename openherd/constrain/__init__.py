"""Grammars and JSON schemas as token masks.

`Grammar` says what the text must be, `compile_grammar` binds it to a model's vocabulary, and the `Constraint` it
gives says before each draw which tokens keep the text on the way to something the grammar accepts. Names load on
first use: most answers are not constrained.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = ["Constraint", "Grammar", "Vocabulary", "compile_grammar"]

if TYPE_CHECKING:
    from openherd.constrain.constraint import Constraint, compile_grammar
    from openherd.constrain.grammar import Grammar
    from openherd.constrain.vocabulary import Vocabulary

_HOME_OF = {
    "Constraint": "openherd.constrain.constraint",
    "Grammar": "openherd.constrain.grammar",
    "Vocabulary": "openherd.constrain.vocabulary",
    "compile_grammar": "openherd.constrain.constraint",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOME_OF[name]), name)
