"""herd inspect: what a model is, from its headers alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

from cyclopts import Parameter

from openherd.cli import output
from openherd.cli.flags import JsonFlag, OfflineFlag
from openherd.store.progress import megabytes
from openherd.visible import visible

Facts = Iterable[tuple[str, object]]


def inspect(
    model: str | None = None,
    /,
    *,
    tensors: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    offline: OfflineFlag = False,
    json: JsonFlag = False,
) -> None:
    """Say what a model is: architecture, tensors, types, tokenizer, template, licence, memory. Reads headers only.

    Parameters
    ----------
    model
        A catalogue name, a file or a folder; none: the default model.
    tensors
        List every tensor too.
    """
    from openherd.checkpoints.describe import describe
    from openherd.store.resolve import resolve

    description = describe(resolve(model, offline=offline))
    if json:
        output.document(description)
        return

    print(_facts(_overview(description)))
    if config := description["config"]:
        print(f"\nArchitecture\n{_facts(_architecture(config))}")
    print(f"\nTypes\n{_types(description['types'])}")
    if tensors:
        print(f"\nTensors\n{_tensors(description['tensors'])}")


def _overview(d: dict[str, Any]) -> Facts:
    tokenizer, template, memory = d["tokenizer"], d["chat_template"], d["memory"]
    yield "path", d["path"]
    yield "format", f"{d['format']}, {megabytes(d['file_bytes'])}"
    yield "name", d["name"] or "not said"
    yield "licence", d["license"] or "not said"
    yield "family", d["architecture"] or "not said"
    if d["unsupported"]:
        yield "cannot be run", d["unsupported"]
    bits = f", {d['bits_per_weight']} bits a weight" if d["bits_per_weight"] else ""
    for assumed in d["assumed"]:
        yield "assumed", assumed
    yield "parameters", f"{d['parameters']:,} in {len(d['tensors'])} tensors{bits}"
    pre = f", {tokenizer['pre']}" if tokenizer["pre"] else ""
    source = f", from {tokenizer['source']}" if tokenizer["source"] not in (None, "header") else ""
    yield "tokenizer", f"{tokenizer['model'] or 'none'}{pre}, {tokenizer['vocab_size'] or 0:,} tokens{source}"
    yield "chat template", f"{template['characters']:,} characters, {template['source']}" if template else "none"
    if template:
        yield "tool calls", d["tool_calls"]
        yield "thinks aloud", "yes" if d["thinks"] else "no"
    if memory:
        yield "weights", megabytes(memory["weights"])
        yield "KV cache", f"{memory['kv_per_token_f16'] / 1e3:.1f} kB a token in f16"
        yield "at full context", megabytes(memory["full_context_f16"])


# Fields that are on, or a number, where a model is as Llama 2 is.
_NEUTRAL = {
    "norm": "rms",
    "activation": "silu",
    "gated": True,
    "embedding_scale": 1.0,
    "logit_scale": 1.0,
    "alibi_scale": 1.0,
}


def _architecture(config: dict[str, Any]) -> Facts:
    """The config's own words; what is off or left at its neutral value is not listed."""
    for name, value in config.items():
        if name == "rope_scaling":
            if value["kind"] != "none":
                yield name, ", ".join(f"{key} {_value(part)}" for key, part in value.items() if part not in (None, []))
        elif name == "family" or value == _NEUTRAL.get(name):  # the overview has said the family
            continue
        elif value or name in _NEUTRAL:
            yield name, _value(value)


def _value(value: Any) -> Any:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return f"{len(value)} divisors"
    return f"{value:g}" if isinstance(value, float) else value


def _facts(facts: Facts) -> str:
    """Two columns, name and value."""
    width = len("at full context")
    return _lines(f"{name:{width}}  {visible(str(value))}" for name, value in facts)


def _types(types: dict[str, dict[str, float]]) -> str:
    rows = [
        (
            name,
            f"{sums['tensors']:,}",
            f"{sums['parameters']:,}",
            megabytes(sums["bytes"]),
            f"{sums['bits_per_weight']:g}",
        )
        for name, sums in types.items()
    ]
    return _table(("type", "tensors", "parameters", "size", "bits a weight"), rows)


def _tensors(tensors: list[dict[str, Any]]) -> str:
    rows = [(t["name"], " x ".join(map(str, t["shape"])), t["type"], megabytes(t["bytes"])) for t in tensors]
    return _table(("name", "shape", "type", "size"), rows)


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """The first column left, the others right. Never wrapped: a name that is cut cannot be searched for."""
    cells = [header, *([visible(cell) for cell in row] for row in rows)]
    first, *others = (max(map(len, column)) for column in zip(*cells, strict=True))
    return _lines(
        "  ".join([f"{name:{first}}", *(f"{cell:>{width}}" for cell, width in zip(row, others, strict=True))])
        for name, *row in cells
    )


def _lines(lines: Iterable[str]) -> str:
    return "\n".join(line.rstrip() for line in lines)
