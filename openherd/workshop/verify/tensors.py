"""The tensors: bit for bit where all types are the recorded ones, by projections where the model was quantised anew."""

from __future__ import annotations

import math

from openherd.checkpoints.source import Checkpoint
from openherd.quant.types import PLAIN_TYPES
from openherd.workshop.golden.document import Golden, TensorFacts
from openherd.workshop.golden.rounding import ROUNDING
from openherd.workshop.golden.tensors import tensor_facts
from openherd.workshop.verify.findings import Report

# How far a tensor's 32 projections may move: their mean square is a sum of 32 squares, whose spread is a quarter of
# it, so 2.5 times the size leaves ten standard deviations and room for weights that round worse than most.
_SLACK = 2.5
_FLOAT32 = 1e-4  # what the projections' own arithmetic and digits leave open


def check_tensors(report: Report, golden: Golden, checkpoint: Checkpoint) -> dict[str, str]:
    """Sets `report.strength`: all equal: "same artifact", other types, now or in between: "another quantisation".

    Returns the types in between that only the file's own account explains, by tensor.
    """
    there = set(checkpoint.tensors)
    lines = [f"{name}: is missing" for name in sorted(golden.tensors.keys() - there)]
    lines += [f"{name}: was not recorded" for name in sorted(there - golden.tensors.keys())]
    pairs = {
        name: (golden.tensors[name], tensor_facts(checkpoint.tensors[name]))
        for name in sorted(there & golden.tensors.keys())
    }
    requantised = sum(was.type != now.type for was, now in pairs.values())
    between = {name: type for name, (was, now) in pairs.items() if (type := _in_between(was, now))}
    report.in_between = tuple(sorted(set(between.values())))
    for name, (was, now) in pairs.items():
        lines += _difference(name, was, now, between.get(name), rounded_anew=requantised > 0 or bool(between))
    report.strength = "another quantisation" if requantised or between else "same artifact" if not lines else "facts"
    detail = f"{len(there)} tensors" + (f", {requantised} of another type than recorded" if requantised else "")
    if between:
        detail += f", {len(between)} were {', '.join(report.in_between)} in between"
    report.add("tensors", lines, detail=detail)
    return between


def rounded_in_between(report: Report, golden: Golden, checkpoint: Checkpoint) -> dict[str, str]:
    """What `check_tensors` returns, of a model whose tensors are not checked."""
    between = {
        name: type
        for name, was in golden.tensors.items()
        if was.rounded_to
        and name in checkpoint.tensors
        and (type := _in_between(was, tensor_facts(checkpoint.tensors[name])))
    }
    report.in_between = tuple(sorted(set(between.values())))
    return between


def _in_between(was: TensorFacts, now: TensorFacts) -> str | None:
    """What the file says that the values were rounded to, where the present type does not say as much."""
    if was.rounded_to is None or was.sha256 == now.sha256:
        return None
    says_more = now.type == was.type or ROUNDING[was.rounded_to] > ROUNDING[now.type]
    return was.rounded_to if says_more else None


def _difference(name: str, was: TensorFacts, now: TensorFacts, between: str | None, *, rounded_anew: bool) -> list[str]:
    """`rounded_anew`: the model was quantised again, after which a quantised tensor of the same type has other bits."""
    if was.shape != now.shape:
        return [f"{name}: shape was {list(was.shape)}, is {list(now.shape)}"]
    if was.type != now.type or between:
        return _compare(name, was, now, between)
    if was.sha256 != now.sha256:
        if rounded_anew and was.type not in PLAIN_TYPES:
            return _compare(name, was, now, None)
        return [f"{name}: the same type, {now.type}, with other values{_moved(was, now)}"]
    return []


def distance(was: TensorFacts, now: TensorFacts) -> float:
    """Root mean square of the projections' differences, as a share of the recorded weights' size."""
    if len(was.sketch) != len(now.sketch):
        return math.inf
    if not was.rms:
        return 0.0 if was.rms == now.rms else math.inf
    return math.sqrt(sum((a - b) ** 2 for a, b in zip(was.sketch, now.sketch, strict=True)) / len(was.sketch)) / was.rms


def allowed(*types: str) -> float:
    """The distance that rounding to these types, one after the other, explains."""
    return _FLOAT32 + _SLACK * math.sqrt(sum(ROUNDING.get(name, 0.5) ** 2 for name in types))


def _compare(name: str, was: TensorFacts, now: TensorFacts, between: str | None) -> list[str]:
    types = [was.type, *([between] if between and between != now.type else []), now.type]
    moved, limit = distance(was, now), allowed(*types)
    if moved <= limit:
        return []
    return [f"{name}: {' to '.join(types)} moves its projections by {moved:.3g} of their size, at most {limit:.3g}"]


def _moved(was: TensorFacts, now: TensorFacts) -> str:
    return f" (projections move by {distance(was, now):.2g} of their size)"
