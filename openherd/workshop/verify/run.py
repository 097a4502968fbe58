"""herd verify: all checks of one model, in order of strength."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

from openherd.checkpoints import open_checkpoint
from openherd.checkpoints.source import Checkpoint
from openherd.errors import HerdError, InputError
from openherd.tokenizers import Tokenizer
from openherd.workshop.golden.document import Golden
from openherd.workshop.golden.places import golden_of
from openherd.workshop.golden.rounding import ROUNDING
from openherd.workshop.verify.facts import check_config, check_template, check_tokenizer
from openherd.workshop.verify.findings import Report
from openherd.workshop.verify.logprobs import check_logprobs
from openherd.workshop.verify.tensors import check_tensors

Say = Callable[[str], None]


def golden_for(path: Path, elsewhere: Path | None) -> Golden:
    """The golden values to check against. Raises InputError when there are none.

    Those from elsewhere are trusted more than the model, so its own account of what it went through counts for nothing.
    """
    if elsewhere is not None and not elsewhere.exists():
        raise InputError(f"there is no file {elsewhere}")
    golden = golden_of(elsewhere or path)
    if golden is None:
        raise InputError(
            f"{elsewhere or path} carries no golden values to check against",
            hint="of a copy that you trust: herd verify MODEL --record; or name a file of them with --golden FILE",
        )
    return golden if elsewhere is None else golden.without_history()


def verify(path: Path, golden: Golden, *, threads: int | None = None, say: Say = lambda text: None) -> Report:
    """Check the model at `path`. Raises HerdError for one that cannot be opened."""
    report = Report()
    checkpoint = open_checkpoint(path)
    check_config(report, golden, checkpoint.config)
    try:
        tokenizer = Tokenizer(checkpoint.tokenizer)
    except HerdError as error:
        report.add("tokenizer", [str(error).splitlines()[0]])
    else:
        check_tokenizer(report, golden, checkpoint, tokenizer)
        check_template(report, golden, checkpoint, tokenizer)
    say("reading the tensors")
    changed = check_tensors(report, golden, checkpoint)
    say("computing what follows short prompts")
    same = report.strength != "another quantisation"
    rounding = rounding_of(checkpoint, types_of(checkpoint) if same else changed)
    check_logprobs(report, golden, path, rounding=rounding, same=same, threads=threads)
    return report


def types_of(checkpoint: Checkpoint) -> dict[str, str]:
    return {name: checkpoint.tensors[name].type.name for name in checkpoint.tensors}


def rounding_of(checkpoint: Checkpoint, types: Mapping[str, str]) -> float:
    """Root mean square of what rounding to these types changes in the matrices, as a share of the weights' own; those
    without a type were not rounded.

    Not the bits a weight: a large embedding in a fine type makes those many, and the layers no better.
    """
    squares = total = 0.0
    for name in checkpoint.tensors:
        shape = checkpoint.tensors[name].shape
        if len(shape) > 1:
            size = math.prod(shape)
            squares += size * ROUNDING[types.get(name, "F32")] ** 2
            total += size
    return math.sqrt(squares / total)
