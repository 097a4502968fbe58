"""herd train export: a trained model as files, proven to compute the same before they get their name."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from openherd.cli import output
from openherd.cli.flags import ENGINE, JsonFlag, OfflineFlag
from openherd.cli.layout import Layout, layout_of, require_adapter_name
from openherd.errors import OptionError, OutputError
from openherd.options import EngineOptions, help_text
from openherd.visible import visible

if TYPE_CHECKING:
    from openherd.checkpoints.source import Checkpoint
    from openherd.train.export import Agreement
    from openherd.train.trained_model import TrainedModel, Which

_FLOATS = ("f32", "f16", "bf16")


def export(
    run: Path,
    out: Path,
    /,
    *,
    to: Annotated[Layout | None, Parameter(show_default=False)] = None,
    type: str = "f16",
    checkpoint: str = "latest",
    adapter_only: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    threads: Annotated[int | None, Parameter(help=help_text(EngineOptions, "threads"))] = ENGINE.threads,
    offline: OfflineFlag = False,
    json: JsonFlag = False,
) -> None:
    """Write a trained model as safetensors or GGUF, with its tokenizer, its chat template and golden values.

    Adapters are merged into the weights. The files are loaded in the engine and compared with the trained model; only
    when they compute the same does OUT appear.

    Parameters
    ----------
    run
        The folder of a training run.
    out
        The file (gguf) or folder (safetensors) to write; it must not exist.
    to
        The layout; left out: gguf where OUT ends in .gguf, else safetensors.
    type
        Number type of the weights: f32, f16 or bf16; for gguf also what herd quantize knows, such as Q8_0 or Q4_K_M.
    checkpoint
        latest, best (the lowest evaluation loss), or the number of a step.
    adapter_only
        Write the adapters of a LoRA run by themselves, as PEFT does: a folder for herd chat --adapter.
    """
    from openherd.checkpoints.free_place import require_new
    from openherd.train.trained_model import open_trained

    if adapter_only:
        require_adapter_name(out, to)
    target = "adapter" if adapter_only else layout_of(out, to)
    require_new(out)
    which = _which(checkpoint)
    if target == "adapter":
        _write_adapter(run, out, which, json)
        return
    kind = _type(type, target)
    with _workplace(out) as folder:
        trained = open_trained(run, which, lambda ref: _open_base(ref, offline))
        _say(f"writing the model of step {trained.step}", json)
        written = _write(trained, folder / out.name, target, kind, threads)
        _say("comparing it with the trained model", json)
        agreement = _check(trained, written, threads)
        _say("recording golden values", json)
        _record(written, threads)
        os.rename(written, out)
    _show(trained, out, target, type, agreement, json)


def _say(text: str, json: bool) -> None:
    if not json:
        output.note(f"herd: {text}")


def _write(trained: TrainedModel, place: Path, target: str, kind: str, threads: int | None) -> Path:
    from openherd.workshop.convert import to_gguf, to_safetensors

    source = trained.checkpoint
    dtype: Literal["f32", "f16", "bf16"] = "f32" if kind == "f32" else "bf16" if kind == "bf16" else "f16"
    if target == "safetensors":
        to_safetensors.write(
            source, place, dtype=dtype, max_shard_bytes=None, golden=None, resume_key="", on_progress=None
        )
        _write_papers(trained, place)
        return place
    to_gguf.write(source, place, dtype=dtype, golden=None, resume_key="", on_progress=None)
    return place if kind in _FLOATS else _quantized(place, kind, threads)


def _quantized(place: Path, kind: str, threads: int | None) -> Path:
    """From 16 bits, in the place of the file."""
    from openherd.store.progress import TerminalProgress
    from openherd.workshop.quantize.run import QuantizeOptions, run_quantize

    floats = place.with_name(f"f16-{place.name}")
    os.rename(place, floats)
    run_quantize(
        str(floats),
        place,
        QuantizeOptions(mix=kind, golden=False, threads=threads),
        offline=True,
        progress=TerminalProgress(),
    )
    floats.unlink()
    return place


def _write_papers(trained: TrainedModel, folder: Path) -> None:
    from openherd.checkpoints.new_file import write_new_text

    for name, text in trained.facts.papers.items():
        if not (folder / name).exists():
            write_new_text(folder / name, text)


def _check(trained: TrainedModel, written: Path, threads: int | None) -> Agreement:
    from openherd.checkpoints import open_checkpoint
    from openherd.tokenizers import Tokenizer
    from openherd.train.export import check_export
    from openherd.workshop.golden.next_tokens import CONTEXT, prompts
    from openherd.workshop.model_logits import open_logits

    max_seq_len = trained.facts.config.max_seq_len
    texts = prompts(Tokenizer(trained.facts.tokenizer), max_seq_len)
    context = min(CONTEXT, max_seq_len)
    checkpoint = open_checkpoint(written)
    with open_logits(checkpoint, context, threads) as logits:
        return check_export(trained, checkpoint, logits, texts)


def _record(written: Path, threads: int | None) -> None:
    from openherd.workshop.golden.places import attach
    from openherd.workshop.golden.record import record

    attach(record(written, threads=threads), written)


def _write_adapter(run: Path, out: Path, which: Which, json: bool) -> None:
    from openherd.checkpoints import open_adapter
    from openherd.train.model.lora_files import write_adapter
    from openherd.train.trained_model import open_adapted

    model, facts = open_adapted(run, which)
    with _workplace(out) as folder:
        write_adapter(model, folder / out.name, facts.base)
        adapter = open_adapter(folder / out.name, facts.config)  # reads back what was written
        os.rename(folder / out.name, out)
    if json:
        output.document({"out": str(out), "to": "adapter", "rank": adapter.rank, "base": facts.base})
    else:
        print(visible(f"{out}: an adapter of rank {adapter.rank}; try: herd chat {facts.base} --adapter {out}"))


def _show(trained: TrainedModel, out: Path, target: str, kind: str, agreement: Agreement, json: bool) -> None:
    from openherd.store.progress import megabytes

    size = sum(file.stat().st_size for file in out.iterdir()) if out.is_dir() else out.stat().st_size
    if json:
        output.document(
            {
                "out": str(out),
                "to": target,
                "type": kind,
                "step": trained.step,
                "bytes": size,
                "compared_positions": agreement.positions,
                "largest_logit_difference": agreement.largest_difference,
                "mean_kl": agreement.mean_kl,
            }
        )
        return
    distance = (
        f"logits within {agreement.largest_difference:.1g} of the trained model's"
        if agreement.is_exact
        else f"{agreement.mean_kl:.2g} nats a token from the trained model"
    )
    print(visible(f"{out}: {megabytes(size)}, step {trained.step}, {kind}; {distance}"))
    output.note(f"herd: try: herd chat {out}")


def _open_base(ref: str, offline: bool) -> Checkpoint:
    from openherd.checkpoints import open_checkpoint
    from openherd.store.resolve import resolve

    return open_checkpoint(resolve(ref, offline=offline))


def _which(checkpoint: str) -> Which:
    if checkpoint == "latest" or checkpoint == "best":
        return "latest" if checkpoint == "latest" else "best"
    if not checkpoint.isascii() or not checkpoint.isdigit() or len(checkpoint) > 12:
        raise OptionError(f"--checkpoint is latest, best or the number of a step, not {checkpoint!r}")
    return int(checkpoint)


def _type(type: str, target: str) -> str:
    """As the writers name it. Raises OptionError before anything is read."""
    if type.lower() in _FLOATS:
        return type.lower()
    if target == "safetensors":
        raise OptionError(f"--type must be f32, f16 or bf16 for safetensors, not {type!r}", hint="try: --to gguf")
    from openherd.workshop.quantize.mixes import find_mix

    return find_mix(type).name


@contextmanager
def _workplace(out: Path) -> Iterator[Path]:
    """A folder beside OUT that is gone afterwards."""
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise OutputError(f"cannot write {out}: {error.strerror or error}") from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
