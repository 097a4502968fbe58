"""Grammars and JSON schemas as token masks.

`Grammar` says what the text must be, `compile_grammar` binds it to a model's vocabulary, and the `Constraint` it
gives says before each draw which tokens keep the text on the way to something the grammar accepts.
"""

from openherd.constrain.constraint import Constraint, compile_grammar
from openherd.constrain.grammar import Grammar
from openherd.constrain.vocabulary import Vocabulary

__all__ = ["Constraint", "Grammar", "Vocabulary", "compile_grammar"]
