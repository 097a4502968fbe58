"""The model run: log-probabilities of next tokens against those recorded."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from openherd.errors import HerdError
from openherd.workshop.golden.document import Golden, NextToken
from openherd.workshop.golden.next_tokens import measured
from openherd.workshop.verify.findings import Report

SAME = 1e-3  # of the same artifact, each
OTHER_INSTRUCTIONS = 0.1  # of the same quantised artifact, in the mean, where other kernels compute it
# Of another quantisation: how far recorded log-probabilities may move in the mean, by the rounding of the weights. Both
# are about in proportion. Chosen, not derived: wide enough for every clean copy of the default model, with and without
# the grid of its own type, and of tiny random ones that was tried. The projections of tensors are the sharper check;
# this one says that the whole still works.
_FLOAT_ROUNDING = 0.002  # float weights round no more
_LEAST, _FOR_ROUNDING, _MOST = 0.1, 15.0, 4.0


def check_logprobs(
    report: Report, golden: Golden, path: Path, *, rounding: float, same: bool, threads: int | None
) -> None:
    """`rounding` of the model's weights; `same`: its tensors are the recorded ones, or are known to be wrong."""
    if not golden.next_tokens:
        report.could_not("log-probabilities", "none were recorded")
        return
    try:
        now = measured(path, [one.ids for one in golden.next_tokens], threads=threads)
    except HerdError as error:
        report.could_not("log-probabilities", f"the model does not run: {str(error).splitlines()[0]}")
        return
    mean: float | None = tolerance(rounding)
    if same:
        # Activations of blocks are rounded to int8, where the last bit of a sum decides: 0.04 in the mean between
        # instruction sets on the default model. Float weights have no such step.
        mean = None if rounding <= _FLOAT_ROUNDING or now.numerics_id == golden.numerics_id else OTHER_INSTRUCTIONS
    compare(report, golden.next_tokens, [dict(one.top) for one in now.next_tokens], mean)


def compare(
    report: Report, was: Sequence[NextToken], now: Sequence[Mapping[int, float]], mean_allowed: float | None
) -> None:
    """Each recorded token's log-probability within SAME, or all of them within `mean_allowed` in the mean."""
    lines, total, worst = [], 0.0, 0.0
    for one, found in zip(was, now, strict=True):
        floor = min(found.values(), default=-math.inf)
        for token, logprob in one.top:
            moved = abs(found.get(token, floor) - logprob)
            total += moved
            worst = max(worst, moved)
            if mean_allowed is None and not moved <= SAME:
                has = f"{found[token]:.4f}" if token in found else f"below {floor:.4f}"
                lines.append(
                    f"after {len(one.ids)} tokens {list(one.ids[-4:])}: log-probability of token {token} was"
                    f" {logprob:.4f}, is {has}"
                )
    count = sum(len(one.top) for one in was)
    mean = total / count
    if mean_allowed is not None and not mean <= mean_allowed:
        lines.append(f"log-probabilities move by {mean:.3f} in the mean, at most {mean_allowed:.3f}")
    limit = f"each at most {SAME:g}" if mean_allowed is None else f"mean at most {mean_allowed:.3g}"
    report.add(
        "log-probabilities", lines, detail=f"{count}, moved by {mean:.2g} in the mean, {worst:.2g} at most; {limit}"
    )


def tolerance(rounding: float) -> float:
    """What the mean may move by, where weights were changed by `rounding` of their size."""
    return min(_LEAST + _FOR_ROUNDING * rounding, _MOST)
