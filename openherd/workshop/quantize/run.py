"""`herd quantize`: open, plan, calibrate, write, measure."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from openherd.checkpoints import open_checkpoint
from openherd.checkpoints.free_place import require_folder_of, require_free
from openherd.checkpoints.gguf_writer import KeyValue, PlannedTensor, write_gguf
from openherd.checkpoints.new_file import Progress as Written
from openherd.errors import CapacityError, FormatError, InputError, UnsupportedError
from openherd.options import EngineOptions
from openherd.store.progress import Progress
from openherd.store.resolve import resolve
from openherd.workshop.calibrate import calibrate
from openherd.workshop.compare import DEFAULT_TOKENS, chunk_progress, compare_distributions
from openherd.workshop.golden.places import KEY, golden_of
from openherd.workshop.golden.record import record
from openherd.workshop.importance import Importance, read_importance, write_importance
from openherd.workshop.quantize.mixes import find_mix
from openherd.workshop.quantize.recipe import NO_DIGEST_YET, digest_of, is_hashed, recipe, recipe_keys
from openherd.workshop.quantize.report import Evaluation, Report
from openherd.workshop.quantize.source import Source, open_source
from openherd.workshop.quantize.tensors import TensorQuantizer


@dataclass(frozen=True, slots=True)
class Text:
    """A text and the name it goes by."""

    name: str
    content: str


@dataclass(frozen=True, slots=True)
class QuantizeOptions:
    mix: str
    calibrate: Text | None = None
    importance: Path | None = None  # written if `calibrate` is given, else read
    evaluate: Text | None = None
    tokens: int = DEFAULT_TOKENS  # of the text that is evaluated on
    requantize: bool = False
    overwrite: bool = False
    golden: bool = True  # the source's golden values go along, or are made
    threads: int | None = None


def run_quantize(ref: str, out: Path, options: QuantizeOptions, *, offline: bool, progress: Progress) -> Report:
    """Write the model `ref` to `out` in fewer bits.

    Nothing is left at `out` when writing fails or is interrupted. The comparison comes after it: what ends that leaves
    the whole file where it is; so does an importance matrix stay that was found and written before.
    Raises `OptionError` for an unknown mix, `InputError` for a source or an importance matrix that does not suit and
    for an `out` that is there already, `OutputError` when `out` cannot be written.
    """
    mix = find_mix(options.mix)
    EngineOptions(threads=options.threads)  # its range
    _check_places(out, options)
    started = perf_counter()
    source = open_source(resolve(ref, offline=offline, progress=progress))
    _check(source, out, options)
    importance = _importance(source, options, progress)
    quantizer = TensorQuantizer(mix, source.shape, importance, options.threads)
    planned = [quantizer.plan(tensor) for tensor in source.tensors]
    with ThreadPoolExecutor(1) as beside:
        # Half a second for each gigabyte on one core, which only the last bytes to be written have to wait for.
        digest = beside.submit(digest_of, source) if is_hashed(source) else None
        golden = {KEY: _golden(source, planned, options, progress)} if options.golden else {}
        document = recipe(source, None if digest is None else NO_DIGEST_YET, mix, planned, importance)

        def late_keys() -> dict[str, KeyValue]:
            if digest is not None:
                document["source"]["sha256"] = digest.result()
            return recipe_keys(mix, document, importance)

        progress.say(f"quantising {source.name} to {mix.name}")
        keys = {**source.keys, **recipe_keys(mix, document, importance), **golden}
        try:
            write_gguf(out, keys, planned, progress=_shown(progress), late_keys=late_keys, new=not options.overwrite)
        finally:
            progress.finish()
    return Report(
        source=source.path,
        source_bytes=source.nbytes,
        source_types=tuple(sorted({tensor.type.name for tensor in source.tensors})),
        path=out,
        recipe=document,
        tensors=quantizer.results,
        seconds=perf_counter() - started,
        evaluation=_evaluate(source, out, options, progress),
    )


def _check_places(out: Path, options: QuantizeOptions) -> None:
    """What can be said before the source is there, which may have to be fetched."""
    require_folder_of(out)
    if out.is_dir():
        raise InputError(f"{out} is a folder; name a file", hint=f"try: {out / 'model.gguf'}")
    if not options.overwrite:
        require_free(out, hint="name another place, or replace it with --overwrite")
    if options.calibrate is not None and options.importance is not None:
        _check_place_of_matrix(out, options.importance, options.overwrite)


def _check(source: Source, out: Path, options: QuantizeOptions) -> None:
    """Nothing that is replaced is the source's."""
    matrix = None if options.calibrate is None else options.importance
    for path in (out, matrix):
        if path is not None and path.exists():
            _require_other(path, source)
    if source.quantized_types and not options.requantize:
        raise UnsupportedError(
            f"{source.name} is quantised already ({', '.join(source.quantized_types)}): quantising it again adds a"
            " second error to the first, and could measure the second alone",
            hint="start from the float weights (F32, F16 or BF16), or accept the loss with --requantize",
        )


def _require_other(path: Path, source: Source) -> None:
    """What would be replaced is no device or pipe, no part of the source, and in no folder that is the source."""
    if not path.is_file():
        raise InputError(f"{path} is not a regular file, so it is not replaced")
    inside = source.path.is_dir() and path.resolve().parent == source.path.resolve()
    if inside or any(path.samefile(file) for file in source.files):
        raise InputError(f"{path} is the source itself; write to another file")


def _check_place_of_matrix(out: Path, matrix: Path, overwrite: bool) -> None:
    """What `--calibrate` is about to write."""
    require_folder_of(matrix)
    if matrix.is_dir():
        raise InputError(f"{matrix} is a folder; name a file for the importance matrix")
    if matrix.resolve() == out.resolve() or (matrix.exists() and out.exists() and matrix.samefile(out)):
        raise InputError(f"{matrix} is to be the model and the importance matrix at once; name two files")
    if not overwrite:
        require_free(matrix, hint="name another place, or replace it with --overwrite; without --calibrate it is read")


def _importance(source: Source, options: QuantizeOptions, progress: Progress) -> Importance | None:
    if options.calibrate is None:
        return None if options.importance is None else _read_importance(source, options.importance)
    text = options.calibrate
    weights = {tensor.name: tensor.shape for tensor in source.tensors if len(tensor.shape) > 1}
    progress.say(f"reading {text.name} through {source.name} for the importance of each column")
    importance = calibrate(
        source.path, text.content, text.name, weights, threads=options.threads, on_chunk=chunk_progress(progress)
    )
    progress.finish()
    if options.importance is not None:
        write_importance(options.importance, importance)
    return importance


def _read_importance(source: Source, path: Path) -> Importance:
    importance = read_importance(path)
    if not any(tensor.name in importance.sums for tensor in source.tensors):
        raise FormatError(
            f"{path.name} has the importance of no tensor of {source.name}: it is of another model",
            hint="--calibrate TEXT finds that of this one",
        )
    return importance


def _golden(source: Source, planned: list[PlannedTensor], options: QuantizeOptions, progress: Progress) -> str:
    """Of the source, which is what the new file is to be a copy of."""
    golden = golden_of(source.path)
    if golden is None:
        progress.say(f"recording golden values of {source.name}")
        golden = record(source.path, threads=options.threads)
    return golden.rewritten(source.retyped(planned)).to_bounded_json()


def _evaluate(source: Source, out: Path, options: QuantizeOptions, progress: Progress) -> Evaluation | None:
    if options.evaluate is None:
        return None
    text = options.evaluate
    held_out = options.calibrate is None or _digest(text) != _digest(options.calibrate)
    progress.say(f"comparing both models on {text.name}")
    try:
        found = compare_distributions(
            source.checkpoint,
            open_checkpoint(out),
            text.content,
            max_tokens=options.tokens,
            threads=options.threads,
            on_chunk=chunk_progress(progress),
        )
    except CapacityError as why:
        return Evaluation(text.name, held_out, None, str(Exception.__str__(why)))
    finally:
        progress.finish()
    return Evaluation(text.name, held_out, found, None)


def _digest(text: Text) -> bytes:
    return hashlib.sha256(text.content.encode("utf-8", "surrogatepass")).digest()


def _shown(progress: Progress) -> Callable[[Written], None]:
    return lambda written: progress.advance(written.done, written.total)
