"""Recording: one run of the readable forward becomes a program of fused operations.

Four fusions: a residual is added by the linear map that made its other term; several maps of one input are one
operation; an activation is quantised where it is made (norm, attention, SwiGLU) when a quantised weight reads it;
rotation happens where keys are stored and where queries are read. Behind the last attention only rows whose logits
are wanted are computed. Buffers are shared by values that never live together. Legend as in `ops.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from openherd.config import Activation, ModelConfig
from openherd.kernels.ops import ExpertNames, Ops, TapName
from openherd.kernels.program import GLOBAL, LOCAL, Buffer, Form, Kind, Operation, Program, Rows


@dataclass(eq=False, slots=True)
class _Value:
    """An activation while recording. `rotating` marks the result of rope, which only attention may read."""

    width: int
    rows: Rows
    rotating: _Value | None = None
    rope: int = -1  # the table, where rotating
    forms: set[Form] = field(default_factory=set)


@dataclass(eq=False, slots=True)
class _Node:
    """An operation over values, before buffers are chosen."""

    kind: Kind
    reads: list[_Value] = field(default_factory=list)
    writes: list[_Value] = field(default_factory=list)
    names: tuple[str, ...] = ()
    residuals: list[_Value | None] = field(default_factory=list)
    rope: int = -1
    layer: int = -1
    tap: int = -1
    window: int = 0
    value: float = 0.0

    def inputs(self) -> list[_Value]:
        return [*self.reads, *(value for value in self.residuals if value is not None)]


_GATES: dict[Activation, Kind] = {"silu": "silu_mul", "gelu": "gelu_mul", "gelu_tanh": "gelu_tanh_mul"}


class Recorder:
    """`Ops` that writes down what the forward does.

    `width_of(name)` is the number of outputs of a linear map; `taps` are (layer, site) in the batch's order.
    """

    def __init__(
        self, config: ModelConfig, width_of: Callable[[str], int], taps: Sequence[tuple[int, TapName]] = ()
    ) -> None:
        self._config, self._width_of, self._taps = config, width_of, taps
        self.nodes: list[_Node] = []

    def embed(self, weight: str) -> _Value:
        return self._record("embed", [], self._config.dim, names=(weight,))

    def rms_norm(self, x: _Value, weight: str) -> _Value:
        return self._record("rms_norm", [x], x.width, names=(weight,))

    def layer_norm(self, x: _Value, weight: str) -> _Value:
        return self._record("layer_norm", [x], x.width, names=(weight,))

    def head_norm(self, x: _Value, weight: str) -> _Value:
        return self._record("head_norm", [x], x.width, names=(weight,))

    def linear(self, x: _Value, *names: str) -> tuple[_Value, ...]:
        outputs = [_Value(self._width_of(name), x.rows) for name in names]
        self.nodes.append(_Node("linear", [_plain(x)], list(outputs), names, [None] * len(names)))
        return tuple(outputs)

    def rope(self, x: _Value, *, local: bool = False) -> _Value:
        return _Value(x.width, x.rows, rotating=_plain(x), rope=LOCAL if local else GLOBAL)

    def attention(self, layer: int, q: _Value, k: _Value, v: _Value) -> _Value:
        self._record("store_kv", [k.rotating or k, v], None, layer=layer, rope=k.rope)
        window = self._config.window(layer)
        return self._record("attention", [q.rotating or q], q.width, layer=layer, rope=q.rope, window=window)

    def gate(self, activation: Activation, gate: _Value, up: _Value) -> _Value:
        return self._record(_GATES[activation], [gate, up], gate.width)

    def activate(self, activation: Activation, x: _Value) -> _Value:
        return self._record(activation, [x], x.width)

    def experts(self, x: _Value, router: _Value, experts: Sequence[ExpertNames]) -> _Value:
        if self._config.activation != "silu":
            raise ValueError(f"experts are gated by silu, not by {self._config.activation}")
        names = tuple(name for expert in experts for name in expert)
        chosen = float(self._config.n_experts_per_token)
        return self._record("experts", [x, router], x.width, names=names, value=chosen)

    def scale(self, x: _Value, factor: float) -> _Value:
        return self._record("scale", [x], x.width, value=factor)

    def clip(self, x: _Value, bound: float) -> _Value:
        return self._record("clip", [x], x.width, value=bound)

    def softcap(self, x: _Value, cap: float) -> _Value:
        return self._record("softcap", [x], x.width, value=cap)

    def add(self, x: _Value, y: _Value) -> _Value:
        return self._record("add", [x, y], x.width)

    def tap(self, x: _Value, layer: int, site: TapName) -> _Value:
        for number, (wanted_layer, wanted_site) in enumerate(self._taps):
            if wanted_site == site and (wanted_layer == layer or site == "final"):
                self._record("keep", [x], None, tap=number)
        return x

    def logit_rows(self, x: _Value) -> _Value:
        return self._record("pick_rows", [x], x.width, rows="R")

    def _record(
        self,
        kind: Kind,
        reads: list[_Value],
        width: int | None,
        *,
        names: tuple[str, ...] = (),
        rows: Rows | None = None,
        rope: int = -1,
        layer: int = -1,
        tap: int = -1,
        window: int = 0,
        value: float = 0.0,
    ) -> _Value:
        out = _Value(width or 0, rows or (reads[0].rows if reads else "T"))
        writes = [out] if width is not None else []
        node = _Node(kind, [_plain(x) for x in reads], writes, names, [], rope, layer, tap, window, value)
        self.nodes.append(node)
        return out


def record(
    forward: Callable[[Ops, ModelConfig], object],
    config: ModelConfig,
    *,
    width_of: Callable[[str], int],
    form_of: Callable[[str], Form],
    taps: Sequence[tuple[int, TapName]] = (),
    adapted: bool = False,
) -> Program:
    """The program of `forward`. `form_of(name)` is the form in which a weight wants its input.

    `taps` are (layer, site); a site that the forward does not have raises ValueError. With `adapted` every linear map's
    input is kept in f32 too.
    """
    recorder = Recorder(config, width_of, taps)
    logits = forward(recorder, config)
    assert isinstance(logits, _Value)
    kept = {node.tap for node in recorder.nodes}
    for number, (layer, site) in enumerate(taps):
        if number not in kept:
            raise ValueError(f"the model has no tap site ({layer}, {site!r})")
    nodes, logits = _pick_rows_early(recorder.nodes, logits)
    nodes = _fuse_residuals(nodes)
    nodes = _split_by_form(nodes, form_of)
    _choose_forms(nodes, form_of, adapted)
    return _assign_buffers(nodes, logits, adapted)


def _plain(x: _Value) -> _Value:
    if x.rotating is not None:
        raise ValueError("only attention can read a rotated activation")
    return x


def _pick_rows_early(nodes: list[_Node], output: _Value) -> tuple[list[_Node], _Value]:
    """Rows are picked behind the last operation that sees them all, and not at the end. Returns what `output` becomes.

    A prompt's rows but its last need no more of the last layer than keys and values. (The rows of one operation do not
    see each other, so no bit changes.)
    """
    whole: set[_Value] = set()  # some reader needs all rows
    narrow: set[_Node] = set()  # read and make rows that are wanted
    for node in reversed(nodes):
        if node.kind == "pick_rows" or (node.kind in _ROW_BY_ROW and not whole.intersection(node.writes)):
            narrow.add(node)
        else:
            whole.update(node.inputs())
    made_narrow = {value for node in narrow for value in node.writes}
    picked = {
        value: _Value(value.width, "R")
        for node in nodes
        if node in narrow
        for value in node.reads
        if value not in made_narrow
    }
    result: list[_Node] = []
    for node in nodes:
        if node.kind == "pick_rows":  # of rows that were picked already
            picked[node.writes[0]] = picked.get(node.reads[0], node.reads[0])
            continue
        node.reads = [picked.get(value, value) for value in node.reads] if node in narrow else node.reads
        result.append(node)
        for value in node.writes:
            if value in made_narrow:
                value.rows = "R"
            elif value in picked:
                result.append(_Node("pick_rows", [value], [picked[value]]))
    return result, picked.get(output, output)


def _fuse_residuals(nodes: list[_Node]) -> list[_Node]:
    """add(x, linear(h)) becomes one linear that starts from x, when nobody else reads the map's own result."""
    num_reads: dict[_Value, int] = {}
    for node in nodes:
        for value in node.inputs():
            num_reads[value] = num_reads.get(value, 0) + 1
    made_by = {value: node for node in nodes for value in node.writes}
    born = {value: i for i, node in enumerate(nodes) for value in node.writes}
    kept = []
    for node in nodes:
        maker = made_by.get(node.reads[1]) if node.kind == "add" else None
        if maker is None or maker.kind != "linear" or num_reads[node.reads[1]] > 1:
            kept.append(node)
            continue
        x, y = node.reads
        if born[x] > born[y]:
            kept.append(node)
            continue
        i = maker.writes.index(y)
        maker.residuals[i], maker.writes[i] = x, node.writes[0]
        made_by[node.writes[0]], born[node.writes[0]] = maker, born[y]
    return kept


def _split_by_form(nodes: list[_Node], form_of: Callable[[str], Form]) -> list[_Node]:
    """Maps of one input whose weights want it in different forms become one operation for each form."""
    split: list[_Node] = []
    for node in nodes:
        forms = sorted({form_of(name) for name in node.names}) if node.kind == "linear" else []
        if len(forms) < 2:
            split.append(node)
            continue
        for form in forms:
            chosen = [i for i, name in enumerate(node.names) if form_of(name) == form]
            part = _Node("linear", node.reads, [node.writes[i] for i in chosen])
            part.names, part.residuals = tuple(node.names[i] for i in chosen), [node.residuals[i] for i in chosen]
            split.append(part)
    return split


def _choose_forms(nodes: list[_Node], form_of: Callable[[str], Form], adapted: bool) -> None:
    """Each value is kept in the forms that its readers want; what is not read by a linear map is f32."""
    for node in nodes:
        for value in node.reads:
            value.forms.add(form_of(node.names[0]) if node.kind == "linear" else "f32")
            if node.kind == "linear" and adapted:
                value.forms.add("f32")
        for residual in node.residuals:
            if residual is not None:
                residual.forms.add("f32")
    for node in nodes:
        for value in node.writes:
            if "q8" in value.forms and node.kind not in _QUANTISING:
                raise ValueError(f"a linear map cannot read the result of {node.kind} in quantised form")
            if not value.forms:
                value.forms.add("f32")  # a result nobody reads: the logits


# Operations that make each row of their results of the same row of what they read.
_ROW_BY_ROW: frozenset[Kind] = frozenset(
    {"rms_norm", "layer_norm", "linear", "scale", "clip", "softcap", "add", *_GATES, *_GATES.values()}
)

# Operations that can quantise a row as they finish it.
_QUANTISING: frozenset[Kind] = frozenset(
    {"rms_norm", "layer_norm", "attention", "pick_rows", *_GATES, *_GATES.values()}
)

# Operations that may write each element where they read it.
_IN_PLACE: frozenset[Kind] = frozenset({"scale", "clip", "softcap"})


def _assign_buffers(nodes: list[_Node], output: _Value, adapted: bool) -> Program:
    """Linear scan: a value takes a free buffer of its shape, and gives it back after its last reader."""
    last_read = {value: i for i, node in enumerate(nodes) for value in node.inputs()}
    last_read[output] = len(nodes)
    buffers: list[Buffer] = []
    free: list[Buffer] = []
    held: dict[_Value, Buffer] = {}
    operations = []
    for i, node in enumerate(nodes):
        reads = tuple(held[value].id for value in node.reads)
        residuals = tuple(held[value].id if value is not None else None for value in node.residuals)
        if _ends_in_place(node, i, last_read):
            # The result takes the room of what it is added to or made of: each element is read before it is written.
            held[node.writes[0]] = held.pop(node.inputs()[-1])
        else:
            for value in node.writes:
                held[value] = _take(free, buffers, value)
        writes = tuple(held[value].id for value in node.writes)
        dead = {value: None for value in [*node.inputs(), *node.writes] if last_read.get(value, -1) <= i}
        free.extend(held.pop(value) for value in dead if value in held)
        settings = node.rope, node.layer, node.tap, node.window, node.value
        operations.append(Operation(node.kind, reads, writes, node.names, residuals, *settings))
    return Program(tuple(buffers), tuple(operations), held[output].id, adapted)


def _ends_in_place(node: _Node, i: int, last_read: dict[_Value, int]) -> bool:
    """Whether what an operation may overwrite dies here: a single map's residual, or what an element-wise one reads."""
    if node.kind in _IN_PLACE:
        return last_read[node.reads[0]] <= i and node.reads[0].forms == node.writes[0].forms
    residual = node.residuals[0] if len(node.residuals) == 1 else None
    if residual is None or residual in node.reads or last_read[residual] > i:
        return False
    return residual.forms == node.writes[0].forms


def _take(free: list[Buffer], buffers: list[Buffer], value: _Value) -> Buffer:
    for buffer in free:
        if (buffer.width, buffer.rows) == (value.width, value.rows) and buffer.forms == frozenset(value.forms):
            free.remove(buffer)
            return buffer
    buffers.append(Buffer(len(buffers), value.width, value.rows, frozenset(value.forms)))
    return buffers[-1]
