"""herd convert: read, plan, check, record, write."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from openherd.checkpoints import open_checkpoint
from openherd.checkpoints.computed_elsewhere import computes_elsewhere
from openherd.checkpoints.free_place import require_new
from openherd.checkpoints.new_file import OnProgress, explained, require_own_partial, unfinished
from openherd.checkpoints.source import Checkpoint
from openherd.checkpoints.tokenizer_rules import differs_elsewhere
from openherd.quant.types import PLAIN_TYPES
from openherd.workshop.convert import to_gguf, to_safetensors
from openherd.workshop.convert.partial_folder import require_own
from openherd.workshop.convert.types import Dtype, Target, type_of
from openherd.workshop.golden.places import golden_of
from openherd.workshop.golden.record import record

Say = Callable[[str], None]
# Rises when the same source gives other bytes: what an older openherd left unfinished is then made anew.
REVISION = 2


@dataclass(frozen=True, slots=True)
class Converted:
    """What was written."""

    out: Path
    bytes: int
    tensors: int
    resumed_tensors: int
    dequantised: tuple[str, ...]  # block types that the new file could not keep
    golden: str  # "carried along", "recorded" or "none"
    notes: tuple[str, ...]  # what the files left open, and what other programs will do otherwise


def convert(
    path: Path,
    out: Path,
    target: Target,
    *,
    dtype: Dtype = "keep",
    max_shard_bytes: int | None = None,
    with_golden: bool = True,
    threads: int | None = None,
    say: Say = lambda text: None,
    on_progress: OnProgress | None = None,
) -> Converted:
    """Write the model at `path` as `out`, which must not exist. An interrupted run is taken up by the same call.

    Raises InputError, UnsupportedError for what the target cannot say, OutputError. After that and after
    an interruption the work lies beside `out` as `.NAME.partial`; what the source is at fault for leaves nothing.
    """
    require_new(out)
    with explained(out):
        if target == "gguf":
            require_own_partial(out)
        else:
            require_own(unfinished(out), out)
    checkpoint = open_checkpoint(path)
    notes = (*checkpoint.notes, *(_elsewhere(checkpoint) if target == "gguf" else []))
    for note in notes:
        say(note)
    retyped = _retyped(checkpoint, target, dtype)
    lost = _dequantised(retyped)
    if lost:
        say(f"blocks of {', '.join(lost)} become {'f16' if dtype == 'keep' else dtype}")
    golden, origin = _golden(path, retyped, threads, say) if with_golden else (None, "none")
    resume_key = json.dumps([REVISION, target, dtype, max_shard_bytes, _identity(checkpoint)])
    if target == "gguf":
        kept = to_gguf.write(
            checkpoint, out, dtype=dtype, golden=golden, resume_key=resume_key, on_progress=on_progress
        )
    else:
        kept = to_safetensors.write(
            checkpoint,
            out,
            dtype=dtype,
            max_shard_bytes=max_shard_bytes,
            golden=golden,
            resume_key=resume_key,
            on_progress=on_progress,
        )
    size = sum(file.stat().st_size for file in out.iterdir()) if out.is_dir() else out.stat().st_size
    return Converted(out, size, len(checkpoint.tensors), kept, lost, origin, notes)


def _elsewhere(checkpoint: Checkpoint) -> list[str]:
    """What llama.cpp does otherwise with the model as GGUF."""
    tokenized = differs_elsewhere(checkpoint.tokenizer)
    return [*([tokenized] if tokenized else []), *computes_elsewhere(checkpoint.config)]


def _retyped(checkpoint: Checkpoint, target: Target, dtype: Dtype) -> dict[str, tuple[str, str]]:
    """Of the tensors that get another type, by name: the one that they have, and that one."""
    tensors = {name: checkpoint.tensors[name] for name in checkpoint.tensors}
    types = {name: (t.type.name, type_of(t, target, dtype).name) for name, t in tensors.items()}
    return {name: (had, gets) for name, (had, gets) in types.items() if had != gets}


def _dequantised(retyped: Mapping[str, tuple[str, str]]) -> tuple[str, ...]:
    """Block types that do not stay, the most frequent first."""
    counts = Counter(had for had, _ in retyped.values() if had not in PLAIN_TYPES)
    return tuple(name for name, _ in counts.most_common())


def _golden(path: Path, retyped: Mapping[str, tuple[str, str]], threads: int | None, say: Say) -> tuple[str, str]:
    """The model's own golden values go along: they are the older truth. Without, they are made now.

    `retyped`: the types that tensors have and get, where they differ.
    """
    golden, origin = golden_of(path), "carried along"
    if golden is None:
        say("recording golden values")
        golden, origin = record(path, threads=threads, say=say), "recorded"
    return golden.rewritten(retyped).to_bounded_json(), origin


def _identity(checkpoint: Checkpoint) -> list[tuple[str, int, int]]:
    """The files and what tells that they are the same as before."""
    facts = [(file, os.stat(file)) for file in checkpoint.files or (checkpoint.path,)]
    return [(str(file.resolve()), stat.st_size, stat.st_mtime_ns) for file, stat in facts]
