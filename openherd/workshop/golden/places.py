"""Where golden values lie, and how they get there."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from openherd.checkpoints.gguf_header import GGUFHeader, read_header
from openherd.checkpoints.gguf_parts import read_gguf
from openherd.checkpoints.gguf_writer import Encoded, KeyValue, PlannedTensor, write_gguf
from openherd.checkpoints.mapped_file import give_back
from openherd.checkpoints.new_file import write_new_text
from openherd.checkpoints.tensor_info import TensorInfo
from openherd.errors import FormatError, InputError
from openherd.workshop.golden.document import MAX_BYTES, Golden, read_golden

U8 = NDArray[np.uint8]
KEY = "openherd.golden"
FILE = "golden.json"
_CHUNK = 1 << 22


def golden_of(path: Path) -> Golden | None:
    """The golden values that came with the model, or those in a JSON file; None: there are none.

    Raises FormatError for values that cannot be read: they are not the same as none.
    """
    if path.is_dir() or path.suffix in (".safetensors", ".json"):
        place = path / FILE if path.is_dir() else path if path.suffix == ".json" else path.with_name(FILE)
        return _in_file(place)
    value = read_gguf(path).values.get(KEY)
    if value is None:
        return None
    if not isinstance(value, str):
        raise FormatError(f"{path}: {KEY} must be a string")
    return read_golden(value.encode(), f"{path}: {KEY}")


def attach(golden: Golden, path: Path) -> Path:
    """Write the values where the model at `path` carries them: into a GGUF file, written anew, or beside the others.

    A link stays one: what it leads to is written. Returns the file that was written. Raises OutputError.
    """
    if path.is_dir() or path.suffix == ".safetensors":
        place = (path if path.is_dir() else path.parent) / FILE
        write_new_text(place.resolve(), golden.to_json() + "\n")
        return place
    header = read_header(path)
    if header.keys.get("split.count", 1) != 1:
        raise InputError(f"{path} is one part of a model; its golden values need a file of their own (--golden FILE)")
    keys: dict[str, KeyValue] = {
        key: Encoded(memoryview(header.file)[start:end]) for key, (start, end) in header.key_places.items()
    }
    keys[KEY] = golden.to_json()
    write_gguf(path.resolve(), keys, [_copied(header, info) for info in header.tensors.values()])
    return path


def _copied(header: GGUFHeader, info: TensorInfo) -> PlannedTensor:
    def chunks() -> Iterator[U8]:
        for start in range(info.offset, info.offset + info.nbytes, _CHUNK):
            yield header.data[start : min(start + _CHUNK, info.offset + info.nbytes)]
        give_back(header.file, info.offset, info.nbytes)

    return PlannedTensor(info.name, info.shape, info.type, chunks)


def _in_file(path: Path) -> Golden | None:
    try:
        facts = path.stat()
    except OSError:
        return None
    if not stat.S_ISREG(facts.st_mode):
        raise FormatError(f"{path} is not a regular file")
    with path.open("rb") as file:
        return read_golden(file.read(MAX_BYTES + 1), str(path))
