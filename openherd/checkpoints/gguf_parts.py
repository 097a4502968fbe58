"""One GGUF model in one file or in several, as llama.cpp's gguf-split cuts them: NAME-00001-of-00003.gguf.

The first part has the model's keys, every part has tensors and says which part of how many it is. Any part names the
model; all must be there and agree.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from openherd.checkpoints.gguf_cursor import Value
from openherd.checkpoints.gguf_header import GGUFHeader, read_header
from openherd.checkpoints.gguf_keys import Keys
from openherd.checkpoints.mapped_file import give_back
from openherd.checkpoints.source import Tensor
from openherd.checkpoints.tensor_info import TensorInfo
from openherd.errors import FormatError, ModelNotFoundError, UnsupportedError

_PART = re.compile(r"(.+)-([0-9]{5})-of-([0-9]{5})\.gguf")
MAX_PARTS = 1024


@dataclass(frozen=True, slots=True)
class GGUFModel:
    """The keys of a model and its tensors, wherever they lie."""

    path: Path  # the file, or the first part
    version: int
    values: Mapping[str, Value]
    places: Mapping[str, TensorInfo]
    tensors: Mapping[str, Tensor]  # by the file's own names
    files: tuple[Path, ...]
    file_bytes: int

    @property
    def keys(self) -> Keys:
        return Keys(self.path, self.values)


def read_gguf(path: Path) -> GGUFModel:
    """Read the header of a file, or of all parts that belong to the one at `path`.

    Raises FormatError, UnsupportedError, or ModelNotFoundError for a file or part that is missing.
    """
    header = read_header(path)
    keys = Keys(path, header.keys)
    count = keys.whole("split.count", 1, most=2**16 - 1)
    if count <= 1:
        return _model([header])
    if count > MAX_PARTS:
        raise FormatError(f"{path}: split.count is {count}; at most {MAX_PARTS} parts are read")
    return _model(_parts(path, header, count))


def _parts(path: Path, header: GGUFHeader, count: int) -> list[GGUFHeader]:
    match = _PART.fullmatch(path.name)
    if match is None or int(match[3]) != count:
        raise UnsupportedError(
            f"{path} is one of {count} parts of a model, but is not named NAME-00001-of-{count:05}.gguf",
            hint="give the parts the names that llama.cpp's gguf-split gave them",
        )
    headers = []
    for number in range(count):
        place = path.with_name(f"{match[1]}-{number + 1:05}-of-{count:05}.gguf")
        if not place.exists():
            raise ModelNotFoundError(f"{path} is one of {count} parts of a model, and {place.name} is missing")
        part = header if place == path else read_header(place)
        keys = Keys(place, part.keys)
        if keys.whole("split.no") != number or keys.whole("split.count") != count:
            raise FormatError(
                f"{place} says that it is part {keys.shown('split.no')} (from 0) of {keys.shown('split.count')}"
            )
        headers.append(part)
    total = Keys(headers[0].path, headers[0].keys).whole("split.tensors.count")
    found = sum(len(part.tensors) for part in headers)
    if total != found:
        raise FormatError(f"{headers[0].path}: split.tensors.count is {total}, but the parts hold {found} tensors")
    return headers


def _model(parts: list[GGUFHeader]) -> GGUFModel:
    first = parts[0]
    tensors: dict[str, Tensor] = {}
    places: dict[str, TensorInfo] = {}
    for part in parts:
        for name, info in part.tensors.items():
            if name in tensors:
                raise FormatError(f"{part.path}: the tensor {name!r} is in an earlier part too")
            places[name] = info
            tensors[name] = Tensor(
                name,
                info.shape,
                info.type,
                partial(info.rows, part.data),
                partial(give_back, part.file, info.offset, info.nbytes),
            )
    return GGUFModel(
        path=first.path,
        version=first.version,
        values=first.keys,
        places=places,
        tensors=tensors,
        files=tuple(part.path for part in parts),
        file_bytes=sum(len(part.data) for part in parts),
    )
