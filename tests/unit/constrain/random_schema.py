"""Random JSON schemas of the kind that people write, all satisfiable and with bounded answers."""

from __future__ import annotations

import random
from typing import Any


def bounded_schema(rng: random.Random, depth: int = 3) -> dict[str, Any]:
    """A schema whose every answer is shorter than a few hundred characters."""
    leaves = [_string, _integer, _enum, _const, _boolean, _null, _pattern]
    inner = [_object, _array, _tuple, _any_of]
    return rng.choice(leaves + inner if depth else leaves)(rng, depth)


def _string(rng: random.Random, depth: int) -> dict[str, Any]:
    low = rng.randrange(4)
    return {"type": "string", "minLength": low, "maxLength": low + rng.randrange(8)}


def _integer(rng: random.Random, depth: int) -> dict[str, Any]:
    low = rng.randrange(-1000, 1000)
    schema = {"type": "integer", "minimum": low, "maximum": low + rng.randrange(1, 500)}
    if rng.random() < 0.2:
        schema |= {"minimum": 0, "maximum": 100, "multipleOf": rng.choice([2, 5, 7])}
    return schema


def _enum(rng: random.Random, depth: int) -> dict[str, Any]:
    return {"enum": rng.sample(["red", "gr\u00fcn", "\u84dd", 'qu"ote', 3, -1.5, None, True, ["x"], {"k": 1}], 3)}


def _const(rng: random.Random, depth: int) -> dict[str, Any]:
    return {"const": rng.choice(["fixed", 42, None, {"a": [1, 2]}])}


def _boolean(rng: random.Random, depth: int) -> dict[str, Any]:
    return {"type": "boolean"}


def _null(rng: random.Random, depth: int) -> dict[str, Any]:
    return {"type": ["null", "boolean"]}


def _pattern(rng: random.Random, depth: int) -> dict[str, Any]:
    return {"type": "string", "pattern": rng.choice([r"^[a-z]{2,5}-\d{3}$", r"^(yes|no)$", r"^#[0-9a-f]{6}$"])}


def _object(rng: random.Random, depth: int) -> dict[str, Any]:
    names = [f"k{i}" for i in range(rng.randrange(1, 4))]
    properties = {name: bounded_schema(rng, depth - 1) for name in names}
    required = [name for name in names if rng.random() < 0.7]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _array(rng: random.Random, depth: int) -> dict[str, Any]:
    low = rng.randrange(3)
    return {
        "type": "array",
        "items": bounded_schema(rng, depth - 1),
        "minItems": low,
        "maxItems": low + rng.randrange(3),
    }


def _tuple(rng: random.Random, depth: int) -> dict[str, Any]:
    items = [bounded_schema(rng, depth - 1) for _ in range(2)]
    return {"type": "array", "prefixItems": items, "items": False, "minItems": 2}


def _any_of(rng: random.Random, depth: int) -> dict[str, Any]:
    return {"anyOf": [bounded_schema(rng, depth - 1) for _ in range(2)]}
