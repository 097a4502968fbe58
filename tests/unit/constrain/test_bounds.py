"""Schemas come from strangers: what cannot be enforced is named, and what would be costly is refused in time."""

from __future__ import annotations

import contextlib
import math
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openherd.constrain import Grammar, compile_grammar
from openherd.constrain.patterns import pattern_size
from openherd.errors import HerdError, SchemaError
from tests.bounds import within_cpu
from tests.unit.constrain.byte_vocabulary import ByteVocabulary

VOCABULARY = ByteVocabulary()
COMPILE_SECONDS = 0.2


def compile_schema(schema: Any) -> None:
    compile_grammar(Grammar.json_schema(schema), VOCABULARY, VOCABULARY.vocab_size)


def nested(depth: int, key: str = "items") -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(depth):
        schema = {key: schema}
    return schema


def nested_lists(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def doubling(keyword: str, levels: int, same: bool) -> dict[str, Any]:
    """Definitions in which each refers to the one before it twice: 2^levels when written out."""
    definitions: dict[str, Any] = {"d0": {"type": "string"}}
    for i in range(1, levels):
        before = {"$ref": f"#/$defs/d{i - 1}"}
        other = before if same else {"type": "object", "properties": {f"p{i}": before}, "required": [f"p{i}"]}
        definitions[f"d{i}"] = {keyword: [before, other]}
    return {"$defs": definitions, "$ref": f"#/$defs/d{levels - 1}"}


def product(n_choices: int, n_factors: int) -> dict[str, Any]:
    """An intersection of unions: n_choices^n_factors alternatives when multiplied out."""
    return {
        "allOf": [
            {"anyOf": [{"properties": {f"p{i}_{j}": {"type": "integer"}}} for i in range(n_choices)]}
            for j in range(n_factors)
        ]
    }


@pytest.mark.parametrize(
    ("schema", "keyword"),
    [
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"not": {"type": "string"}}, "not"),
        ({"if": {}, "then": {}}, "if"),
        ({"type": "array", "contains": {}}, "contains"),
        ({"propertyNames": {"pattern": "a"}}, "propertyNames"),
        ({"dependentRequired": {"a": ["b"]}}, "dependentRequired"),
        ({"unevaluatedProperties": False}, "unevaluatedProperties"),
        ({"$dynamicRef": "#x"}, "$dynamicRef"),
        ({"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}}, "uniqueItems"),
        ({"oneOf": [{"type": "string"}, {"type": "string", "maxLength": 3}]}, "oneOf"),
        ({"type": "string", "format": "iban"}, "format"),
        ({"type": "string", "pattern": "(?=a)b"}, "pattern"),
        ({"type": "string", "pattern": "("}, "pattern"),
        ({"$ref": "http://example.org/schema"}, "$ref"),
        ({"$ref": "#/$defs/missing"}, "$ref"),
        ({"x-guidance": {"lenient": True}, "not": {}}, "x-guidance"),
        ({"type": "integer", "multipleOf": 0}, "multipleOf"),
        ({"type": "strin"}, "strin"),
    ],
)
def test_unsupported_keyword_is_named(schema: dict[str, Any], keyword: str) -> None:
    with pytest.raises(SchemaError) as raised:
        compile_schema(schema)
    assert keyword in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize("schema", [False, 3, "text", None, [], {"enum": []}, {"minimum": 5, "maximum": 3}])
def test_schema_that_allows_nothing_is_refused(schema: Any) -> None:
    with pytest.raises(SchemaError):
        compile_schema(schema if not isinstance(schema, dict) else {"type": "integer", **schema})


A, B = {"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}
ENDLESS: dict[str, dict[str, Any]] = {
    "itself": {"$ref": "#"},
    "each other": {"$defs": {"a": B, "b": A}, "$ref": "#/$defs/a"},
    "anyOf": {"anyOf": [{"$ref": "#"}, {"type": "null"}]},
    "allOf through oneOf": {"$defs": {"a": {"oneOf": [{"allOf": [A]}]}}, "type": "object", "properties": {"x": A}},
    "a member of a list": {"anyOf": [{"type": "null"}, {"$ref": "#/anyOf/1"}]},
    "an escaped name": {
        "$defs": {"a/b ~": {"$ref": "#/$defs/a~1b%20~0"}},
        "properties": {"x": {"$ref": "#/$defs/a~1b%20~0"}},
    },
}


@pytest.mark.parametrize("name", ENDLESS)
def test_references_that_never_reach_a_value_are_refused(name: str) -> None:
    with pytest.raises(SchemaError, match=r"'\$ref': '#.*' leads back to itself"):
        compile_schema(ENDLESS[name])


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"child": {"$ref": "#"}}, "additionalProperties": False},
        {"$defs": {"a": {"anyOf": [{"type": "array", "items": A}, {"type": "null"}]}}, "allOf": [A]},
        {"type": "object", "properties": {"$ref": {"type": "string"}, "anyOf": {"type": "null"}}},
    ],
)
def test_references_that_go_on_with_another_value_are_kept(schema: dict[str, Any]) -> None:
    compile_schema(schema)


EXPLODING = [
    "((((a{100}){100}){100}){100})",
    "^(a{200,}){200}$",
    "a{99999999999}",
    "(?:[ab]{300}|x)\\d{0,3}(c{150}){150}",
]


@pytest.mark.parametrize("pattern", EXPLODING)
def test_repetitions_that_multiply_are_refused(pattern: str) -> None:
    with pytest.raises(SchemaError, match="'pattern' repeats"):
        compile_schema({"type": "object", "properties": {"x": {"type": "string", "pattern": pattern}}})
    with pytest.raises(SchemaError, match="'patternProperties' repeats"):
        compile_schema({"type": "object", "patternProperties": {pattern: {"type": "null"}}})
    with pytest.raises(SchemaError, match="the regular expression repeats"):
        Grammar.regex(pattern)


@pytest.mark.parametrize(
    ("pattern", "size"),
    [
        ("^[A-Z]{3}-\\d{2,4}$", 8),
        ("(?:ab|c){5}", 15),
        ("(?P<x>a){2,}?", 2),
        ("\\p{Greek}{3}\\{9}", 6),
        ("[{9}\\]]{4}", 4),
        ("a{2}{3}", 6),
        ("(()){99}", 0),
        ("))((", 0),
    ],
)
def test_size_of_a_pattern(pattern: str, size: int) -> None:
    assert pattern_size(pattern) == size


def test_largest_pattern_is_drawn_to_its_end() -> None:
    """What is let through does not fail while an answer is drawn."""
    constraint = compile_grammar(Grammar.regex("(a{100}){200}"), VOCABULARY, VOCABULARY.vocab_size)
    for _ in range(200):
        constraint.next([])
        constraint.accept(list(b"a" * 100))
    assert constraint.is_complete or constraint.is_accepting


def test_grammar_that_no_text_fits_is_refused() -> None:
    with pytest.raises(SchemaError, match="no text fits"):
        compile_grammar(Grammar.regex("[^\\s\\S]"), VOCABULARY, VOCABULARY.vocab_size)


HOSTILE = {
    "deep": nested(5_000),
    "deep lists": {"enum": nested_lists(5_000)},
    "deep allOf": {"allOf": [nested(40, "not")]},
    "wide": {"properties": {f"p{i}": {} for i in range(5_000)}},
    "wide enum": {"enum": [f"v{i}" for i in range(100_000)]},
    "long pattern": {"type": "string", "pattern": "a" * 100_000},
    "same doubling": doubling("allOf", 40, same=True),
    "allOf doubling": doubling("allOf", 24, same=False),
    "anyOf doubling": doubling("anyOf", 40, same=False),
    "product 4^6": product(4, 6),
    "product 4^8": product(4, 8),
    "product 12^3": product(12, 3),
    "multipleOf": {"type": "integer", "multipleOf": 1_000_003},
    "multipleOf met": {"type": "integer", "allOf": [{"multipleOf": 997}, {"multipleOf": 991}]},
    "multipleOf by reference": {
        "$defs": {"a": {"type": "integer", "multipleOf": 9973}},
        "allOf": [{"$ref": "#/$defs/a"}, {"multipleOf": 9967}],
    },
    "multipleOf fractions": {"type": "number", "multipleOf": 1e-300},
    "not a number": {"type": "number", "multipleOf": math.nan},
    "self": {"$ref": "#"},
    "not JSON": {"enum": [object()]},
    "lone surrogate": {"const": "\ud800"},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_schema_is_refused_in_time(name: str) -> None:
    compile_schema({})  # build the vocabulary's trie, which is not part of the bound

    def refuse() -> None:
        with contextlib.suppress(SchemaError):  # some are compiled after all, because the compiler sees through them
            compile_schema(HOSTILE[name])

    within_cpu(COMPILE_SECONDS, refuse)


PEAK_GROWTH = """
import contextlib, resource
from openherd.errors import SchemaError
from tests.unit.constrain.test_bounds import HOSTILE, compile_schema

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

compile_schema({})
before = peak()
for schema in HOSTILE.values():
    with contextlib.suppress(SchemaError):
        compile_schema(schema)
print(peak() - before)
"""


def test_hostile_schemas_take_little_memory() -> None:
    """The peak of a process of its own, in MiB, so that nothing earlier hides it."""
    grown = subprocess.run([sys.executable, "-c", PEAK_GROWTH], capture_output=True, text=True, check=True)
    assert int(grown.stdout) <= 64


LARGE_BUT_FINE = {
    "no upper bound": {"type": "array", "items": {"type": "integer"}, "maxItems": 10**9},
    "long minimum": {"type": "string", "minLength": 10**5, "maxLength": 10**5 + 3},
    "nested repetition": {"type": "string", "pattern": r"^(((([a-z]{1,9}x){1,99}y){1,99}z){1,99}){1,99}$"},
    "catastrophic backtracking": {"type": "string", "pattern": "^(a+)+b$"},
    "wide choice": {"type": "string", "pattern": "(a|b)*a(a|b){500}"},
    "enum": {"enum": [f"v{i}" for i in range(4_000)]},
    "properties": {"properties": {f"p{i}": {"type": "integer"} for i in range(400)}},
    "deep": nested(45),
    "recursive": {"type": "object", "properties": {"child": {"$ref": "#"}}},
}


@pytest.mark.parametrize("name", LARGE_BUT_FINE)
def test_large_schema_compiles_in_time(name: str) -> None:
    compile_schema({})
    within_cpu(COMPILE_SECONDS, lambda: compile_schema(LARGE_BUT_FINE[name]))


def test_long_grammar_is_refused() -> None:
    with pytest.raises(SchemaError, match="bytes long"):
        Grammar.regex("a" * 20_000)
    with pytest.raises(SchemaError, match="bytes long"):
        Grammar.lark("start: " + '"a" ' * 20_000)
    with pytest.raises(SchemaError, match="%json"):
        Grammar.lark('start: %json {"multipleOf": 99991}')


KEYWORDS = [
    "type", "enum", "const", "properties", "required", "items", "prefixItems", "anyOf", "allOf", "oneOf", "$ref",
    "$defs", "minimum", "maximum", "multipleOf", "minLength", "maxLength", "pattern", "minItems", "maxItems",
    "minProperties", "maxProperties", "additionalProperties", "patternProperties", "format", "not",
]  # fmt: skip
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["object", "array", "a*", "#", ""]),
    lambda child: st.lists(child, max_size=4) | st.dictionaries(st.sampled_from(KEYWORDS), child, max_size=4),
    max_leaves=30,
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(KEYWORDS), JUNK, max_size=5))
def test_any_document_compiles_or_is_refused(schema: dict[str, Any]) -> None:

    def compile_or_refuse() -> None:
        with contextlib.suppress(HerdError):
            compile_schema(schema)

    within_cpu(COMPILE_SECONDS, compile_or_refuse)
