"""The tensors: bit for bit where all types are the recorded ones, by projections where the model was quantised anew."""

from __future__ import annotations

import math

from openherd.checkpoints.source import Checkpoint
from openherd.quant.types import PLAIN_TYPES
from openherd.workshop.golden.document import Golden, TensorFacts
from openherd.workshop.golden.tensors import tensor_facts
from openherd.workshop.verify.findings import Report

# Root mean square of what rounding to a type changes, as a share of the weights' own: the greater of normal weights and
# of weights with outliers, by ggml's quantisers (`tests/parity/make_rounding_errors.py`).
ROUNDING = {
    "F32": 0.0, "F16": 0.000208, "BF16": 0.00166, "Q8_0": 0.00676, "Q6_K": 0.0215, "Q5_K": 0.042, "Q5_1": 0.0435,
    "Q5_0": 0.0537, "Q4_K": 0.083, "IQ4_NL": 0.0886, "Q4_1": 0.0898, "Q4_0": 0.108, "MXFP4": 0.126, "Q3_K": 0.177,
    "Q2_K": 0.334,
}  # fmt: skip
# How far a tensor's 32 projections may move: their mean square is a sum of 32 squares, whose spread is a quarter of
# it, so 2.5 times the size leaves ten standard deviations and room for weights that round worse than most.
_SLACK = 2.5
_FLOAT32 = 1e-4  # what the projections' own arithmetic and digits leave open


def check_tensors(report: Report, golden: Golden, checkpoint: Checkpoint) -> None:
    """Sets `report.strength`: all equal: "same artifact", other types: "another quantisation"."""
    there = set(checkpoint.tensors)
    lines = [f"{name}: is missing" for name in sorted(golden.tensors.keys() - there)]
    lines += [f"{name}: was not recorded" for name in sorted(there - golden.tensors.keys())]
    pairs = {
        name: (golden.tensors[name], tensor_facts(checkpoint.tensors[name]))
        for name in sorted(there & golden.tensors.keys())
    }
    requantised = sum(was.type != now.type for was, now in pairs.values())
    for name, (was, now) in pairs.items():
        lines += _difference(name, was, now, rounded_anew=requantised > 0)
    report.strength = "another quantisation" if requantised else "same artifact" if not lines else "facts"
    detail = f"{len(there)} tensors" + (f", {requantised} of another type than recorded" if requantised else "")
    report.add("tensors", lines, detail=detail)


def _difference(name: str, was: TensorFacts, now: TensorFacts, *, rounded_anew: bool) -> list[str]:
    """`rounded_anew`: the model was quantised again, after which a quantised tensor of the same type has other bits."""
    if was.shape != now.shape:
        return [f"{name}: shape was {list(was.shape)}, is {list(now.shape)}"]
    if was.type != now.type or (rounded_anew and was.type not in PLAIN_TYPES and was.sha256 != now.sha256):
        return _compare(name, was, now)
    if was.sha256 != now.sha256:
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


def _compare(name: str, was: TensorFacts, now: TensorFacts) -> list[str]:
    moved, limit = distance(was, now), allowed(was.type, now.type)
    if moved <= limit:
        return []
    return [f"{name}: {was.type} to {now.type} moves its projections by {moved:.3g} of their size, at most {limit:.3g}"]


def _moved(was: TensorFacts, now: TensorFacts) -> str:
    return f" (projections move by {distance(was, now):.2g} of their size)"
