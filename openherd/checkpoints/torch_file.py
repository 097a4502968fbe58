"""The tensors of a file that torch.save wrote (`pytorch_model.bin`, `consolidated.00.pth`), mapped, without torch.

The archive (`zip_members`) has one folder with data.pkl, which says what lies where (`torch_pickle`), and the storages
under data/. Not covered: the format before torch 1.6 (not an archive), sparse and quantised tensors, TorchScript.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from openherd.checkpoints.mapped_file import give_back, map_file
from openherd.checkpoints.source import Tensor
from openherd.checkpoints.tensor_info import TensorInfo
from openherd.checkpoints.torch_pickle import MAX_BYTES, TensorPlace, read_tensor_places
from openherd.checkpoints.zip_members import Member, is_zip, read_members
from openherd.errors import FormatError, UnsupportedError
from openherd.quant.types import BLOCK_TYPES

_PICKLE = "data.pkl"
_OLD_MAGIC = (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", b"\x80\x04\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.")


def read_torch_file(path: Path, *, ignored: Callable[[str], bool] = lambda name: False) -> dict[str, Tensor]:
    """Tensors by the file's own names; only the directory and data.pkl are read. `ignored` names are left out.

    Raises FormatError, UnsupportedError (naming the opcode, the global or the tensor) or ModelNotFoundError.
    """
    data = map_file(path)
    _require_archive(path, data)
    members = read_members(path, data)
    folder = _folder(path, members)
    _require_little_endian(path, data, members.get(f"{folder}byteorder"))
    pickle = members[folder + _PICKLE]
    if pickle.nbytes > MAX_BYTES:
        raise FormatError(f"{path}: {_PICKLE} of {pickle.nbytes} bytes is more than the limit of {MAX_BYTES}")
    places = read_tensor_places(pickle.check(path, data), f"{path}: {_PICKLE}")
    raw = np.frombuffer(data, np.uint8)
    tensors: dict[str, Tensor] = {}
    for name, place in places.items():
        if not ignored(name):
            info = _info(path, name, place, members.get(f"{folder}data/{place.storage.key}"))
            read = partial(info.rows, raw)
            tensors[name] = Tensor(
                name, info.shape, info.type, read, partial(give_back, data, info.offset, info.nbytes)
            )
    return tensors


def _require_archive(path: Path, data: mmap.mmap) -> None:
    if is_zip(data):
        return
    if data[:15] in _OLD_MAGIC:
        raise UnsupportedError(
            f"{path} is in torch's format before version 1.6, which is not an archive; openherd reads the newer one",
            hint="load it with torch and save it again, or look for the model as safetensors or GGUF",
        )
    raise FormatError(f"{path}: not a torch file (it does not begin as a zip archive)")


def _folder(path: Path, members: dict[str, Member]) -> str:
    """The archive's one folder, with its slash."""
    found = [name.removesuffix(_PICKLE) for name in members if name.endswith(f"/{_PICKLE}") and name.count("/") == 1]
    if len(found) != 1:
        raise FormatError(f"{path}: not a torch file (the archive has {len(found)} times FOLDER/{_PICKLE})")
    if f"{found[0]}constants.pkl" in members:
        raise UnsupportedError(f"{path} is a TorchScript program; openherd reads dictionaries of tensors")
    return found[0]


def _require_little_endian(path: Path, data: mmap.mmap, member: Member | None) -> None:
    if member is not None and data[member.offset : member.offset + min(member.nbytes, 16)] != b"little":
        raise UnsupportedError(f"{path} was saved in another byte order than little-endian")


def _info(path: Path, name: str, place: TensorPlace, member: Member | None) -> TensorInfo:
    at = f"{path}: tensor {name[:80]!r}"
    kind, storage = place.storage.type, place.storage
    if member is None:
        raise FormatError(f"{at} lies in data/{storage.key[:80]}, which the archive does not have")
    if member.nbytes != storage.length * kind.itemsize:
        raise FormatError(f"{at}: {storage.length} numbers of {kind.shown} are not {member.nbytes} bytes")
    if kind.name is None:
        raise UnsupportedError(f"{at} is a {kind.shown}; openherd reads F32, F16 and BF16")
    count = math.prod(place.shape)
    if count == 0:
        raise UnsupportedError(f"{at} is empty (shape {place.shape})")
    block_type = BLOCK_TYPES[kind.name]
    offset = member.offset + place.offset * kind.itemsize
    return TensorInfo(name, place.shape or (1,), block_type, offset, count * kind.itemsize)
