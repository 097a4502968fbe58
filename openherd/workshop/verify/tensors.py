"""The tensors: bit for bit where all types are the recorded ones, by projections where the model was quantised anew."""

from __future__ import annotations

import math

from openherd.checkpoints.source import Checkpoint
from openherd.quant.types import PLAIN_TYPES
from openherd.workshop.golden.document import Golden, TensorFacts
from openherd.workshop.golden.rounding import ROUNDING, coarsest
from openherd.workshop.golden.tensors import tensor_facts
from openherd.workshop.verify.findings import Report

# How far a tensor's 32 projections may move: their mean square is a sum of 32 squares, whose spread is a quarter of
# it, so 2.5 times the size leaves ten standard deviations and room for weights that round worse than most.
_SLACK = 2.5
_FLOAT32 = 1e-4  # what the projections' own arithmetic and digits leave open


def check_tensors(report: Report, golden: Golden, checkpoint: Checkpoint) -> dict[str, str]:
    """Sets `report.strength`: all equal: "same artifact", other types, now or in between: "another quantisation".

    Returns the coarsest type of each tensor whose digest is not the recorded one: what it may be explained by.
    """
    there = set(checkpoint.tensors)
    lines = [f"{name}: is missing" for name in sorted(golden.tensors.keys() - there)]
    lines += [f"{name}: was not recorded" for name in sorted(there - golden.tensors.keys())]
    pairs = {
        name: (golden.tensors[name], tensor_facts(checkpoint.tensors[name]))
        for name in sorted(there & golden.tensors.keys())
    }
    changed = {name: pair for name, pair in pairs.items() if pair[0].sha256 != pair[1].sha256}
    retyped = sum(was.type != now.type for was, now in pairs.values())
    between = {name: type for name, (was, now) in changed.items() if (type := _in_between(was, now))}
    for name, (was, now) in pairs.items():
        lines += _difference(name, was, now, between.get(name), rounded_anew=retyped > 0)
    report.in_between = tuple(sorted(set(between.values())))
    report.strength = "another quantisation" if retyped or between else "same artifact" if not lines else "facts"
    anew = sum(was.type == now.type for was, now in changed.values())
    detail = f"{len(there)} tensors" + (f", {retyped} of another type than recorded" if retyped else "")
    detail += f", {anew} of the same type with other values" if anew and not lines else ""
    detail += f", {len(between)} were {', '.join(report.in_between)} in between" if between else ""
    report.add("tensors", lines, detail=detail)
    return {name: coarsest(now.type, between.get(name, now.type)) for name, (_, now) in changed.items()}


def types_in_between(golden: Golden, checkpoint: Checkpoint) -> dict[str, str]:
    """Of each tensor for which it counts, what its values were rounded to by the file's own account."""
    return {
        name: type
        for name, was in golden.tensors.items()
        if was.rounded_to and name in checkpoint.tensors
        if (type := _in_between(was, tensor_facts(checkpoint.tensors[name])))
    }


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
    return _FLOAT32 + _SLACK * math.sqrt(sum(ROUNDING[name] ** 2 for name in types))


def _compare(name: str, was: TensorFacts, now: TensorFacts, between: str | None) -> list[str]:
    types = [was.type, *([between] if between and between != now.type else []), now.type]
    moved, limit = distance(was, now), allowed(*types)
    if moved <= limit:
        return []
    return [f"{name}: {' to '.join(types)} moves its projections by {moved:.3g} of their size, at most {limit:.3g}"]


def _moved(was: TensorFacts, now: TensorFacts) -> str:
    return f" (projections move by {distance(was, now):.2g} of their size)"
