"""The forward pass as a program: a list of fused operations over reused buffers, for the native core.

`record` (in `recorder.py`) runs the readable forward once and leaves a `Program`. Nothing in it depends on the batch: a
buffer has T rows (all rows of a step) or R rows (those whose logits are wanted), and both are known only when it runs.
Legend as in `ops.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Rows: TypeAlias = Literal["T", "R"]
# As computed, and in integers of 8 to 15 bits by blocks of 32, which quantised weights read.
Form: TypeAlias = Literal["f32", "q8"]
Kind: TypeAlias = Literal[
    "embed",  # writes[0] = rows of names[0] for the token ids
    "rms_norm",  # writes[0] = norm of reads[0] by names[0]
    "layer_norm",  # the same with the mean taken off, and a bias where the model has one
    "head_norm",  # writes[0] = rms_norm of each head of reads[0] by itself
    "linear",  # writes[i] = map names[i] of reads[0], + residuals[i]
    "store_kv",  # keys reads[0] (rotated) and values reads[1] go to layer's cache
    "attention",  # writes[0] = attention of queries reads[0] (rotated) over layer's cache
    "silu",  # writes[0] = silu(reads[0]); likewise the next two
    "gelu",
    "gelu_tanh",
    "silu_mul",  # writes[0] = silu(reads[0]) * reads[1]; likewise the next two
    "gelu_mul",
    "gelu_tanh_mul",
    "experts",  # writes[0] = of reads[0] by the experts that reads[1] chooses; names: gate, up and down of each in turn
    "scale",  # writes[0] = value * reads[0]
    "clip",  # writes[0] = reads[0] within [-value, value]
    "softcap",  # writes[0] = value * tanh(reads[0] / value)
    "add",  # writes[0] = reads[0] + reads[1]
    "keep",  # the rows of tap number `tap` of reads[0] are kept for `hidden`
    "pick_rows",  # writes[0] = the rows of reads[0] whose logits are wanted
]


# Tables of rotary angles: that of most layers, and that of layers with a sliding window where it is another.
GLOBAL, LOCAL = 0, 1


@dataclass(frozen=True, slots=True)
class Buffer:
    """Room for one activation: rows x width values, in each of its forms."""

    id: int
    width: int
    rows: Rows
    forms: frozenset[Form]

    def __str__(self) -> str:
        return f"b{self.id} {'+'.join(sorted(self.forms))}[{self.rows},{self.width}]"


@dataclass(frozen=True, slots=True)
class Operation:
    """One step of the program; every thread finishes it before the next begins. Buffers are given by id."""

    kind: Kind
    reads: tuple[int, ...] = ()
    writes: tuple[int, ...] = ()
    names: tuple[str, ...] = ()  # weights, canonical, without the `.weight` suffix
    residuals: tuple[int | None, ...] = ()  # linear: added to each output; may be the output's own buffer
    rope: int = -1  # store_kv, attention: the table by which keys or queries are rotated on the way; -1: they are not
    layer: int = -1
    tap: int = -1
    window: int = 0  # attention: positions that a query sees; 0: all before it
    value: float = 0.0  # scale, clip, softcap; experts: how many a row has

    def __str__(self) -> str:
        arguments = [f"b{i}" for i in self.reads] + list(self.names)
        if self.rope >= 0:
            arguments[0] = f"{'local ' if self.rope == LOCAL else ''}rope {arguments[0]}"
        if self.window:
            arguments.append(f"window {self.window}")
        if self.value:
            arguments.append(f"{self.value:g}")
        where = f"[{self.tap}]" if self.kind == "keep" else f"[{self.layer}]" if self.layer >= 0 else ""
        call = f"{self.kind}{where}({', '.join(arguments)})"
        added = "".join(f" + b{i}" for i in self.residuals if i is not None)
        return f"{', '.join(f'b{i}' for i in self.writes)} = {call}{added}" if self.writes else call


@dataclass(frozen=True, slots=True)
class Program:
    """What the native core runs for one step. `str(program)` lists it, a buffer or an operation a line."""

    buffers: tuple[Buffer, ...]
    operations: tuple[Operation, ...]
    output: int  # the buffer of the logits, [R, V]
    adapted: bool = field(default=False)  # inputs of linear maps are also kept in f32, for rows with an adapter

    def __str__(self) -> str:
        return "\n".join([*map(str, self.buffers), *map(str, self.operations), f"logits b{self.output}"])


def scratch_bytes(program: Program, max_rows: int, max_logit_rows: int) -> int:
    """Native memory of the buffers: 4 bytes a value in f32, 96 a block of 32 in q8."""
    total = 0
    for buffer in program.buffers:
        per_row = ("f32" in buffer.forms) * 4 * buffer.width + ("q8" in buffer.forms) * 96 * -(-buffer.width // 32)
        total += per_row * (max_logit_rows if buffer.rows == "R" else max_rows)
    return total
