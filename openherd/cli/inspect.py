"""herd inspect: what a model file is, from its header alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from openherd.chat.visible import visible
from openherd.cli import output
from openherd.cli.flags import JsonFlag, OfflineFlag

if TYPE_CHECKING:
    from rich.table import Table

Facts = Iterable[tuple[str, object]]


def inspect(
    model: str | None = None,
    /,
    *,
    tensors: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    offline: OfflineFlag = False,
    json: JsonFlag = False,
) -> None:
    """Say what a model file is: architecture, tensors, types, tokenizer, template, licence, memory. Reads headers only.

    Parameters
    ----------
    model
        A catalogue name or a file; none: the default model.
    tensors
        List every tensor too.
    """
    from openherd.checkpoints.describe import describe
    from openherd.store.resolve import resolve

    description = describe(resolve(model, offline=offline))
    if json:
        output.document(description)
        return

    from rich.console import Console

    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(_facts(_overview(description)))
    if config := description["config"]:
        console.print("\nArchitecture")
        console.print(_facts(_architecture(config)))
    console.print("\nTypes")
    console.print(_types(description["types"]))
    if tensors:
        console.print("\nTensors")
        console.print(_tensors(description["tensors"]))


def _overview(d: dict[str, Any]) -> Facts:
    tokenizer, template, memory = d["tokenizer"], d["chat_template"], d["memory"]
    yield "file", d["path"]
    yield "format", f"{d['format']}, {_mebibytes(d['file_bytes'])}"
    yield "name", d["name"] or "not said"
    yield "licence", d["license"] or "not said"
    yield "family", d["architecture"] or "not said"
    if d["unsupported"]:
        yield "cannot be run", d["unsupported"]
    bits = f", {d['bits_per_weight']} bits a weight" if d["bits_per_weight"] else ""
    yield "parameters", f"{d['parameters']:,} in {len(d['tensors'])} tensors{bits}"
    pre = f", {tokenizer['pre']}" if tokenizer["pre"] else ""
    yield "tokenizer", f"{tokenizer['model'] or 'none'}{pre}, {tokenizer['vocab_size'] or 0:,} tokens"
    yield "chat template", f"{template['characters']:,} characters" if template else "none"
    if memory:
        yield "weights", _mebibytes(memory["weights"])
        yield "KV cache", f"{memory['kv_per_token_f16'] / 1024:.1f} KiB a token in f16"
        yield "at full context", _mebibytes(memory["full_context_f16"])


def _architecture(config: dict[str, Any]) -> Facts:
    """The config's own words; what is off or left at its neutral value is not listed."""
    scaling = config["rope_scaling"]
    for name, value in config.items():
        if name == "rope_scaling":
            if scaling["kind"] != "none":
                yield name, ", ".join(f"{key} {part}" for key, part in scaling.items() if part is not None)
        elif name == "rope_factors":
            if value:
                yield name, f"{len(value)} divisors"
        elif value:
            yield name, f"{value:g}" if isinstance(value, float) else "yes" if value is True else value


def _facts(facts: Facts) -> Table:
    """Two columns, name and value. What comes from the file cannot steer the terminal."""
    table = _table()
    table.add_column(style="bold", min_width=len("at full context"))
    table.add_column(overflow="fold")
    for name, value in facts:
        table.add_row(name, visible(str(value)))
    return table


def _types(types: dict[str, dict[str, float]]) -> Table:
    table = _table("type", "tensors", "parameters", "size", "bits a weight")
    for name, sums in types.items():
        table.add_row(
            name,
            f"{sums['tensors']:,}",
            f"{sums['parameters']:,}",
            _mebibytes(sums["bytes"]),
            f"{sums['bits_per_weight']:g}",
        )
    return table


def _tensors(tensors: list[dict[str, Any]]) -> Table:
    table = _table("name", "shape", "type", "size")
    for tensor in tensors:
        shape = " x ".join(map(str, tensor["shape"]))
        table.add_row(visible(tensor["name"]), shape, tensor["type"], _mebibytes(tensor["bytes"]))
    return table


def _table(*columns: str) -> Table:
    """No box; the first column left, numbers right."""
    from rich.table import Table

    table = Table(box=None, show_header=bool(columns), pad_edge=False, header_style="dim")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", overflow="fold")
    return table


def _mebibytes(num_bytes: float) -> str:
    return f"{num_bytes / 2**20:,.1f} MiB"
