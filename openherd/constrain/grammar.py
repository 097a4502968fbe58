"""What a constrained answer must look like, before it is bound to a vocabulary."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from openherd.constrain.bounds import MAX_GRAMMAR_BYTES, MAX_SCHEMA_BYTES, check_schema
from openherd.constrain.patterns import check_pattern
from openherd.errors import SchemaError

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

# Where JSON allows whitespace: nothing, a space, or a new line with indentation. Bounded, so that a model that
# likes blanks cannot fill its answer with them.
WHITESPACE = r"\n?[ ]{0,16}"

# Passed after the schema's own options, so that a schema cannot switch checks off.
_COMPILE_OPTIONS: JsonCompileOptions = {"whitespace_pattern": WHITESPACE, "coerce_one_of": False, "lenient": False}


@dataclass(frozen=True, slots=True)
class Grammar:
    """A grammar in the constraint engine's own serialised form; make one with the class methods."""

    serialized: str

    @classmethod
    def json_schema(cls, schema: Mapping[str, Any] | bool) -> Grammar:
        """Text that is JSON and valid under `schema` (JSON Schema draft 2020-12).

        Keys come in the schema's order. Raises `SchemaError` for a keyword that cannot be enforced and for
        schemas over the bounds. Not covered: keys that `additionalProperties` or `patternProperties` allow may repeat.
        """
        from llguidance import LLMatcher

        if isinstance(schema, bool):
            if not schema:
                raise SchemaError("the schema false allows no answer")
            schema = {}
        if not isinstance(schema, Mapping):
            raise SchemaError(f"a schema is a JSON object, not {type(schema).__name__}")
        text = check_schema(schema)
        try:
            return cls(LLMatcher.grammar_from_json_schema(text, overrides=_COMPILE_OPTIONS))
        except ValueError as why:
            raise SchemaError(f"the schema cannot be enforced: {why}") from None

    @classmethod
    def json_object(cls) -> Grammar:
        """Any JSON object."""
        return cls.json_schema({"type": "object"})

    @classmethod
    def composed(cls, rules: str, parts: Mapping[str, Grammar]) -> Grammar:
        """Text that `rules` derive from `start`, in Lark's notation, where `@name` stands for one of `parts`.

        The rules are the program's own and not bounded; the parts are, together as each by itself.
        """
        grammars = [{"name": "rules", "lark_grammar": rules}]
        for name, part in parts.items():
            (only,) = json.loads(part.serialized)["grammars"]
            grammars.append({**only, "name": name})
        text = json.dumps({"grammars": grammars})
        if sum(len(part.serialized) for part in parts.values()) > MAX_SCHEMA_BYTES:
            raise SchemaError(f"the schemas are longer than {MAX_SCHEMA_BYTES} bytes together")
        return cls(text)

    @classmethod
    def regex(cls, pattern: str) -> Grammar:
        """Text that the regular expression matches as a whole (Rust's syntax: no look-around, no back-references)."""
        from llguidance import LLMatcher

        check_pattern(_bounded(pattern, "regular expression"), "the regular expression")
        return cls(LLMatcher.grammar_from_regex(pattern))

    @classmethod
    def lark(cls, grammar: str) -> Grammar:
        """Text that a context-free grammar in Lark's notation derives from `start`."""
        from llguidance import LLMatcher

        if "%json" in grammar:
            raise SchemaError("'%json' is not supported inside a grammar; pass the schema as a schema")
        return cls(LLMatcher.grammar_from_lark(_bounded(grammar, "grammar")))


def _bounded(text: str, what: str) -> str:
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > MAX_GRAMMAR_BYTES:
        raise SchemaError(f"the {what} is {size} bytes long; at most {MAX_GRAMMAR_BYTES} are compiled")
    return text
