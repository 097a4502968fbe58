"""A model of any layout as one GGUF file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from openherd.checkpoints.families import by_name
from openherd.checkpoints.file_name import file_name
from openherd.checkpoints.gguf_header import read_header
from openherd.checkpoints.gguf_parts import read_gguf
from openherd.checkpoints.gguf_tokenizer_writer import tokenizer_keys
from openherd.checkpoints.gguf_writer import Encoded, KeyValue, PlannedTensor, write_gguf
from openherd.checkpoints.new_file import OnProgress
from openherd.checkpoints.planned_tensors import copied_tensor, planned_tensors
from openherd.checkpoints.source import Checkpoint
from openherd.checkpoints.written_config import gguf_keys, rope_tensors
from openherd.quant.types import BLOCK_TYPES
from openherd.workshop.convert.check import require_same_from_gguf
from openherd.workshop.convert.types import FILE_TYPES, Dtype, type_of
from openherd.workshop.golden.places import KEY

_FILE_TYPE = "general.file_type"
# Beginnings of keys that say how a file's blocks were found: untrue of other blocks.
QUANTISED_BY = ("openherd.quantize.", "quantize.imatrix.")


def write(
    checkpoint: Checkpoint,
    out: Path,
    *,
    dtype: Dtype,
    golden: str | None,
    resume_key: str,
    on_progress: OnProgress | None,
) -> int:
    """The number of tensors taken over from an interrupted run."""
    keys, tensors = plan(checkpoint, out, dtype=dtype)
    if golden is not None:
        keys[KEY] = golden
    return write_gguf(out, keys, tensors, progress=on_progress, resume_key=resume_key, new=True)


def plan(
    checkpoint: Checkpoint, out: Path, *, dtype: Dtype = "keep"
) -> tuple[dict[str, KeyValue], list[PlannedTensor]]:
    """Keys, without golden values, and tensors that the model has as a GGUF file. `out` is named by refusals alone."""
    from_gguf = checkpoint.format.startswith("GGUF")
    return _from_gguf(checkpoint, dtype) if from_gguf else _from_folder(checkpoint, out, dtype)


def _from_gguf(checkpoint: Checkpoint, dtype: Dtype) -> tuple[dict[str, KeyValue], list[PlannedTensor]]:
    """Every key and tensor as the file has them, parts joined; only types change, and only if asked."""
    model = read_gguf(checkpoint.path)
    header = read_header(model.files[0])
    view = memoryview(header.file)
    keys: dict[str, KeyValue] = {
        key: Encoded(view[start:end])
        for key, (start, end) in header.key_places.items()
        if not key.startswith("split.") and key != KEY
    }
    tensors = [
        copied_tensor(name, tensor, tensor.type if dtype == "keep" else type_of(tensor, "gguf", dtype))
        for name, tensor in model.tensors.items()
    ]
    if dtype != "keep":
        keys[_FILE_TYPE] = _file_type(tensors)
    if any(tensor.type != model.tensors[tensor.name].type for tensor in tensors):
        keys = {key: value for key, value in keys.items() if not key.startswith(QUANTISED_BY)}
    return keys, tensors


def _from_folder(checkpoint: Checkpoint, out: Path, dtype: Dtype) -> tuple[dict[str, KeyValue], list[PlannedTensor]]:
    config = checkpoint.config
    family = by_name(config.family)
    tensors = planned_tensors(checkpoint.tensors, config, family, "gguf", lambda t: type_of(t, "gguf", dtype))
    divisors = rope_tensors(config)
    tensors = [*(_vector(name, values) for name, values in divisors.items()), *tensors]
    model = gguf_keys(config, family)
    require_same_from_gguf(checkpoint, family, model, divisors, out)
    keys: dict[str, KeyValue] = {
        "general.architecture": family.architecture,
        "general.type": "model",
        "general.name": checkpoint.name or file_name(checkpoint.path.resolve()),
        **({} if checkpoint.license is None else {"general.license": checkpoint.license}),
        _FILE_TYPE: _file_type(tensors),
        "general.quantization_version": 2,
        **model,
        **tokenizer_keys(checkpoint.tokenizer, checkpoint.chat_template),
    }
    return keys, tensors


def _vector(name: str, values: NDArray[np.float32]) -> PlannedTensor:
    raw = values.astype("<f4").view(np.uint8)
    return PlannedTensor(name, values.shape, BLOCK_TYPES["F32"], lambda: [raw])


def _file_type(tensors: list[PlannedTensor]) -> int:
    """Of the type that most bytes have."""
    sizes: Mapping[str, int] = Counter()
    for tensor in tensors:
        sizes[tensor.type.name] += tensor.nbytes  # type: ignore[index]
    return FILE_TYPES.get(max(sizes, key=lambda name: sizes[name]), 0)
