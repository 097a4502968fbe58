"""A model of any layout as a Hugging Face folder: safetensors, config.json, tokenizer, template, licence."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from openherd.checkpoints.families import by_name
from openherd.checkpoints.gguf_writer import PlannedTensor
from openherd.checkpoints.hf_folder import NAME, is_name, read_hf_folder
from openherd.checkpoints.json_keys import JsonKeys
from openherd.checkpoints.new_file import OnProgress, sync_folder, unfinished, write_new_text
from openherd.checkpoints.planned_tensors import copied_tensor, planned_tensors
from openherd.checkpoints.safetensors_writer import fill_shards, forget_journals, shards_of
from openherd.checkpoints.source import Checkpoint
from openherd.checkpoints.strict_json import read_json_object
from openherd.checkpoints.written_hf_config import hf_config
from openherd.errors import InputError, OutputError
from openherd.workshop.convert.carried import carried_files, made_files
from openherd.workshop.convert.check import require_same_from_hf, require_same_tokenizer
from openherd.workshop.convert.partial_folder import LOCK, alone, discard
from openherd.workshop.convert.types import HF_DTYPES, Dtype, type_of
from openherd.workshop.golden.places import FILE

_CONFIG = "config.json"
# To these transformers gives a padding token of its own where config.json names none; SmolLM3's lies outside of small
# vocabularies, and then nothing loads.
_OWN_PADDING = ("gemma2", "gemma3_text", "phi3", "smollm3")


def write(
    checkpoint: Checkpoint,
    out: Path,
    *,
    dtype: Dtype,
    max_shard_bytes: int | None,
    golden: str | None,
    resume_key: str,
    on_progress: OnProgress | None,
) -> int:
    """Into a folder beside `out`, which takes its name when all is there; tensors taken over from an earlier run."""
    from_hf = checkpoint.format.startswith("Hugging Face")
    tensors = _as_they_are(checkpoint, dtype) if from_hf else _renamed(checkpoint, dtype)
    settings = _copied_config(checkpoint, tensors) if from_hf else _made_config(checkpoint, tensors, out)
    files = {_CONFIG: (json.dumps(settings, indent=2, ensure_ascii=False) + "\n").encode()}
    if not from_hf:
        files |= made_files(checkpoint)
    if checkpoint.path.is_dir():
        files |= carried_files(checkpoint.path, tokenizer=from_hf)
        if not from_hf:  # Meta's tokenizer.model is kept beside what was made of it, where it is SentencePiece's
            files |= _meta_tokenizer(checkpoint)
    if golden is not None:
        files[FILE] = golden.encode() + b"\n"
    config = JsonKeys(out / _CONFIG, settings)

    def check(folder: Path) -> None:
        if not from_hf:
            require_same_tokenizer(checkpoint, folder, config)

    return _fill(out, shards_of(tensors, max_shard_bytes), files, check, resume_key, on_progress)


def _fill(
    out: Path,
    shards: dict[str, list[PlannedTensor]],
    files: dict[str, bytes],
    check: Callable[[Path], None],
    resume_key: str,
    on_progress: OnProgress | None,
) -> int:
    """`check` looks at the small files before the tensors come. Raises as `alone`, before anything in the partial
    folder is touched."""
    partial = unfinished(out)
    try:
        with alone(partial, out):
            for left in partial.iterdir():  # of a run with other shards
                if left.name != LOCK and not _is_of(shards, left.name):
                    left.unlink()
            for name, data in files.items():
                write_new_text(partial / name, data)
            try:
                check(partial)
                kept = fill_shards(partial, shards, resume_key=resume_key, on_progress=on_progress)
            except InputError:  # the source's fault: going on would fail again
                discard(partial)
                raise
            forget_journals(partial, shards)
            sync_folder(partial)
            os.rename(partial, out)
            (out / LOCK).unlink()
            sync_folder(out.parent)
    except OSError as error:
        raise OutputError(f"cannot write {out}: {error.strerror or error}") from None
    return kept


def _is_of(shards: dict[str, list[PlannedTensor]], name: str) -> bool:
    return name in shards or name.removesuffix(".journal") in shards


def _as_they_are(checkpoint: Checkpoint, dtype: Dtype) -> list[PlannedTensor]:
    """Every tensor of the files under its own name, also what the family keeps fused."""
    weights = read_hf_folder(checkpoint.path).weights
    return [copied_tensor(name, tensor, type_of(tensor, "safetensors", dtype)) for name, tensor in weights.items()]


def _renamed(checkpoint: Checkpoint, dtype: Dtype) -> list[PlannedTensor]:
    family = by_name(checkpoint.config.family)
    return planned_tensors(
        checkpoint.tensors, checkpoint.config, family, "hf", lambda t: type_of(t, "safetensors", dtype)
    )


def _made_config(checkpoint: Checkpoint, tensors: list[PlannedTensor], out: Path) -> dict[str, Any]:
    family = by_name(checkpoint.config.family)
    settings = hf_config(checkpoint.config, family, _dtype(tensors))
    require_same_from_hf(checkpoint, family, settings, out)
    spec = checkpoint.tokenizer
    for name, token in (("bos_token_id", spec.bos_id), ("eos_token_id", spec.eos_id), ("pad_token_id", spec.pad_id)):
        if token is not None:
            settings[name] = token
    if checkpoint.name and is_name(checkpoint.name):
        settings[NAME] = checkpoint.name
    if spec.pad_id is None and settings["model_type"] in _OWN_PADDING:
        settings["pad_token_id"] = None
    return settings


def _copied_config(checkpoint: Checkpoint, tensors: list[PlannedTensor]) -> dict[str, Any]:
    """The folder's own config, with the type that the weights have now."""
    path = checkpoint.path / _CONFIG
    settings = read_json_object(path.read_bytes(), str(path))
    settings["dtype" if "dtype" in settings else "torch_dtype"] = _dtype(tensors)
    return settings


def _meta_tokenizer(checkpoint: Checkpoint) -> dict[str, bytes]:
    path = checkpoint.path / "tokenizer.model"
    return {path.name: path.read_bytes()} if checkpoint.tokenizer.kind == "spm" and path.is_file() else {}


def _dtype(tensors: list[PlannedTensor]) -> str:
    """The type that most bytes have, as torch names it."""
    sizes: dict[str, int] = {}
    for tensor in tensors:
        sizes[tensor.type.name] = sizes.get(tensor.type.name, 0) + tensor.nbytes
    return HF_DTYPES[max(sizes, key=lambda name: sizes[name])]
