"""References of a schema that lead back to themselves before any value is read: no text can ever decide them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any
from urllib.parse import unquote

from openherd.errors import SchemaError

# Keywords whose schemas speak of the same value as the schema they stand in.
_SAME_VALUE = ("allOf", "anyOf", "oneOf")


def check_references(schema: Mapping[str, Any], nodes: Iterable[Mapping[str, Any]]) -> None:
    """Raise `SchemaError` for endless recursion on one value (JSON Schema draft 2020-12, core, section 9.4.1).

    `nodes` are the objects of the document. References by `$id` or `$anchor` are not followed.
    """
    by_id = {id(node): node for node in nodes}
    graph = {key: {id(other) for other in _same_value(node, schema)} for key, node in by_id.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as found:
        cycle = [by_id[key] for key in found.args[1]]
        references = sorted({node["$ref"] for node in cycle if "$ref" in node})
        raise SchemaError(f"'$ref': {references[0]!r} leads back to itself before any value") from None


def _same_value(node: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The schemas that the value of `node` must be held against at once."""
    reference = node.get("$ref")
    target = _resolve(reference, schema) if isinstance(reference, str) else None
    if isinstance(target, Mapping):
        yield target
    for keyword in _SAME_VALUE:
        members = node.get(keyword)
        if isinstance(members, (list, tuple)):
            yield from (member for member in members if isinstance(member, Mapping))


def _resolve(reference: str, schema: Mapping[str, Any]) -> object:
    """What a JSON pointer (RFC 6901) into this document names; None when it names nothing."""
    if reference != "#" and not reference.startswith("#/"):
        return None
    target: object = schema
    for part in unquote(reference).split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(target, Mapping):
            target = target.get(key)
        elif isinstance(target, (list, tuple)) and key.isascii() and key.isdigit() and len(key) < 6:
            target = target[int(key)] if int(key) < len(target) else None
        else:
            return None
    return target
