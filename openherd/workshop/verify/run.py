"""herd verify: all checks of one model, in order of strength."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from openherd.checkpoints import open_checkpoint
from openherd.checkpoints.source import Checkpoint
from openherd.errors import HerdError, InputError
from openherd.tokenizers import Tokenizer
from openherd.workshop.golden.document import Golden
from openherd.workshop.golden.places import golden_of
from openherd.workshop.verify.facts import check_config, check_template, check_tokenizer
from openherd.workshop.verify.findings import Report
from openherd.workshop.verify.logprobs import check_logprobs
from openherd.workshop.verify.tensors import check_tensors

Say = Callable[[str], None]


def golden_for(path: Path, elsewhere: Path | None) -> Golden:
    """The golden values to check against. Raises InputError when there are none."""
    if elsewhere is not None and not elsewhere.exists():
        raise InputError(f"there is no file {elsewhere}")
    golden = golden_of(elsewhere or path)
    if golden is None:
        raise InputError(
            f"{elsewhere or path} carries no golden values to check against",
            hint="of a copy that you trust: herd verify MODEL --record; or name a file of them with --golden FILE",
        )
    return golden


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
    check_tensors(report, golden, checkpoint)
    say("computing what follows short prompts")
    same = report.strength != "another quantisation"
    check_logprobs(report, golden, path, bits=bits_of(checkpoint), same=same, threads=threads)
    return report


def bits_of(checkpoint: Checkpoint) -> float:
    """Bits a weight of the matrices."""
    matrices = [checkpoint.tensors[name] for name in checkpoint.tensors if len(checkpoint.tensors[name].shape) > 1]
    return 8 * sum(t.nbytes for t in matrices) / sum(math.prod(t.shape) for t in matrices)
