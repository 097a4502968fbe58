"""herd convert: a model into another layout."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from openherd.cli import output
from openherd.cli.flags import ENGINE, JsonFlag, OfflineFlag, warn_of_many_threads
from openherd.cli.layout import Layout, layout_of
from openherd.errors import InputError, OptionError, OutputError
from openherd.options import EngineOptions, help_text
from openherd.visible import visible

_NUMBER = re.compile(r"[0-9]{1,15}")
_SIZE = re.compile(r"([0-9]{1,6}) ?([KMG])B?", re.IGNORECASE)
_UNITS = {"K": 10**3, "M": 10**6, "G": 10**9}


def convert(
    model: str,
    out: str,
    /,
    *,
    to: Annotated[Layout | None, Parameter(show_default=False)] = None,
    dtype: Literal["keep", "f32", "f16", "bf16"] = "keep",
    max_shard_size: Annotated[str | None, Parameter(show_default=False)] = None,
    no_golden: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    threads: Annotated[int | None, Parameter(help=help_text(EngineOptions, "threads"))] = ENGINE.threads,
    offline: OfflineFlag = False,
    json: JsonFlag = False,
) -> None:
    """Write a model in another layout, with its tokenizer, template, licence and golden values.

    An interrupted run goes on where it was when the same command is given again.

    Parameters
    ----------
    model
        A catalogue name, a GGUF file, or a folder in Hugging Face's or Meta's layout.
    out
        The file (gguf) or folder (safetensors) to write; it must not exist.
    to
        The layout; left out: gguf where OUT ends in .gguf, else safetensors.
    dtype
        Number type of the weights; keep: as they are, and quantised blocks as f16 where the layout has none.
    max_shard_size
        Cut safetensors into shards of at most so much: a whole number with KB, MB or GB behind it, such as 5GB.
    no_golden
        Do not make golden values (which runs the model once); those that the model carries are left out too.
    """
    warn_of_many_threads(threads)

    from openherd.checkpoints.free_place import require_new
    from openherd.checkpoints.new_file import BusyError, unfinished
    from openherd.store.progress import TerminalProgress, megabytes
    from openherd.store.resolve import resolve
    from openherd.workshop.convert.run import convert

    place = Path(out)
    target = layout_of(place, to)
    if target == "gguf" and max_shard_size is not None:
        raise InputError("--max-shard-size is for safetensors; a GGUF file is written whole")
    max_shard_bytes = None if max_shard_size is None else _bytes(max_shard_size)
    require_new(place)  # before the model is looked for, which may have to be fetched
    progress = TerminalProgress()
    try:
        done = convert(
            resolve(model, offline=offline),
            place,
            target,
            dtype=dtype,
            max_shard_bytes=max_shard_bytes,
            with_golden=not no_golden,
            threads=threads,
            say=lambda text: None if json else output.note(f"herd: {text}"),
            on_progress=None if json else lambda at: progress.advance(at.done, at.total),
        )
    except KeyboardInterrupt:
        progress.finish()
        if unfinished(place).exists():
            output.note(f"herd: interrupted; the same command goes on with what is done, kept in {unfinished(place)}")
        raise
    except OutputError as error:
        progress.finish()
        if unfinished(place).exists() and not isinstance(error, BusyError):
            output.note(f"herd: the same command goes on with what is done, kept in {unfinished(place)}")
        raise
    if json:
        output.document(
            {
                "out": str(done.out),
                "to": target,
                "bytes": done.bytes,
                "tensors": done.tensors,
                "resumed_tensors": done.resumed_tensors,
                "dequantised": list(done.dequantised),
                "golden": done.golden,
                "notes": list(done.notes),
            }
        )
        return
    progress.finish()
    resumed = f", {done.resumed_tensors} of them from the interrupted run" if done.resumed_tensors else ""
    print(visible(f"{done.out}: {megabytes(done.bytes)}, {done.tensors} tensors{resumed}; golden values {done.golden}"))


def _bytes(size: str) -> int:
    """A bare number is refused: one thinks of megabytes, another program of bytes."""
    match = _SIZE.fullmatch(size.strip())
    if match is None or int(match[1]) == 0:
        raise OptionError(
            f"--max-shard-size is a whole number with KB, MB or GB behind it, not {size!r}",
            hint=f"try: {_suggested(size.strip())}",
        )
    return int(match[1]) * _UNITS[match[2].upper()]


def _suggested(size: str) -> str:
    """A size that is taken: a small bare number with its units, a large one read as bytes."""
    number = int(size) if _NUMBER.fullmatch(size) else 0
    if not number:
        return "5GB"
    if number < 10**6:
        return f"{number}MB or {number}GB"
    millions = number // 10**6
    return f"{millions // 1000}GB" if millions % 1000 == 0 or millions >= 10**6 else f"{millions}MB"
