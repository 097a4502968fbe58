"""Bounds on a schema, checked before anything is compiled, because compilation cannot be interrupted.

The limits keep compilation under 0.2 s and 64 MiB on one core, whatever the schema: `parser_limits` bounds the
compiler where it can bound itself, and `check_schema` refuses what grows before those limits are looked at.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from openherd.constrain.patterns import check_pattern
from openherd.constrain.references import check_references
from openherd.errors import SchemaError

if TYPE_CHECKING:
    from llguidance import LLParserLimits

MAX_SCHEMA_BYTES = 64 * 1024
MAX_GRAMMAR_BYTES = 16 * 1024
MAX_SCHEMA_DEPTH = 48
MAX_SUBSCHEMAS = 2_000  # objects in the document; each optional property costs a pass over those after it
MAX_PROPERTIES = 500  # optional properties of one object cost quadratic time
# x % m == 0 is an automaton of m states over the digits: at 10,000 it takes 30 ms to build, at 100,000 0.4 s.
# Intersections (allOf, $ref) multiply, hence the least common multiple over the whole document.
MAX_MULTIPLE_OF = 10_000

# What llguidance counts by itself: symbols of the grammar, work of the lexer, Earley items of a step.
MAX_GRAMMAR_SYMBOLS = 20_000
MAX_LEXER_FUEL = 200_000
MAX_STEP_LEXER_FUEL = 100_000
MAX_STEP_ITEMS = 20_000
MAX_LEXER_STATES = 50_000


def parser_limits() -> LLParserLimits:
    """The compiler's and parser's own limits. Errors stay short: the long form quotes grammar and state."""
    from llguidance import LLParserLimits

    return LLParserLimits(
        max_grammar_size=MAX_GRAMMAR_SYMBOLS,
        initial_lexer_fuel=MAX_LEXER_FUEL,
        step_lexer_fuel=MAX_STEP_LEXER_FUEL,
        step_max_items=MAX_STEP_ITEMS,
        max_lexer_states=MAX_LEXER_STATES,
        verbose_errors=False,
    )


def check_schema(schema: Mapping[str, Any]) -> str:
    """The schema as compact JSON text. Raises `SchemaError` naming the bound or keyword that it breaks."""
    multiples: list[Decimal] = []
    nodes: list[Mapping[str, Any]] = []
    for count, (node, depth) in enumerate(_walk(schema), start=1):
        if depth > MAX_SCHEMA_DEPTH:
            raise SchemaError(f"the schema is nested deeper than {MAX_SCHEMA_DEPTH} levels")
        if count > MAX_SUBSCHEMAS:
            raise SchemaError(f"the schema has more than {MAX_SUBSCHEMAS} objects")
        if "x-guidance" in node:
            raise SchemaError("the keyword 'x-guidance' is not supported in a schema")
        nodes.append(node)
        properties = node.get("properties")
        if isinstance(properties, Mapping) and len(properties) > MAX_PROPERTIES:
            raise SchemaError(f"'properties' names more than {MAX_PROPERTIES} properties")
        multiple = node.get("multipleOf")
        if isinstance(multiple, (int, float)) and not isinstance(multiple, bool):
            multiples.append(_positive_decimal(multiple))
        _check_patterns(node)
    _check_multiples(multiples)
    check_references(schema, nodes)
    try:
        text = json.dumps(schema, ensure_ascii=False, allow_nan=False)
        size = len(text.encode())
    except (TypeError, ValueError) as why:
        raise SchemaError(f"the schema is not JSON: {why}") from None
    if size > MAX_SCHEMA_BYTES:
        raise SchemaError(f"the schema is {size} bytes long; at most {MAX_SCHEMA_BYTES} are compiled")
    return text


def _walk(schema: object) -> Iterator[tuple[Mapping[str, Any], int]]:
    """Every object in the document with its depth; a stack, because the document may be deeper than Python's own.

    Depth is checked by the caller as objects come; lists count as levels, so that lists of lists end too.
    """
    stack: list[tuple[object, int]] = [(schema, 0)]
    while stack:
        node, depth = stack.pop()
        if depth > MAX_SCHEMA_DEPTH + 1:
            raise SchemaError(f"the schema is nested deeper than {MAX_SCHEMA_DEPTH} levels")
        if isinstance(node, Mapping):
            yield node, depth
            stack.extend((child, depth + 1) for child in node.values())
        elif isinstance(node, (list, tuple)):
            stack.extend((child, depth + 1) for child in node)


def _check_patterns(node: Mapping[str, Any]) -> None:
    pattern, by_pattern = node.get("pattern"), node.get("patternProperties")
    if isinstance(pattern, str):
        check_pattern(pattern, "'pattern'")
    for key in by_pattern if isinstance(by_pattern, Mapping) else ():
        check_pattern(str(key), "'patternProperties'")


def _positive_decimal(value: float) -> Decimal:
    number = Decimal(repr(value))
    if not number.is_finite() or number <= 0 or abs(number.adjusted()) > 30:
        raise SchemaError(f"'multipleOf' must be a positive number between 1e-30 and 1e30, not {value!r}")
    return number


def _check_multiples(multiples: list[Decimal]) -> None:
    if not multiples:
        return
    exponents = [int(m.normalize().as_tuple().exponent) for m in multiples]
    shift = min(exponents)
    whole = [int(m.scaleb(-shift)) for m in multiples]
    if math.lcm(*whole) > MAX_MULTIPLE_OF:
        raise SchemaError(
            f"the values of 'multipleOf' have a least common multiple of more than {MAX_MULTIPLE_OF} steps"
        )
