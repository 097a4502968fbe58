"""Files as torch.save writes them, put together from their pieces, so that any piece can be wrong."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def whole(value: int) -> bytes:
    return b"J" + struct.pack("<i", value) if -(2**31) <= value < 2**31 else b"\x8a\x08" + struct.pack("<q", value)


def sizes(values: Sequence[int]) -> bytes:
    return b"(" + b"".join(map(whole, values)) + b"t"


def name(full: str) -> bytes:
    module, _, attribute = full.rpartition(".")
    return f"c{module}\n{attribute}\n".encode()


@dataclass
class Entry:
    """A tensor: where it lies in which storage. `stride` None is row-major."""

    shape: Sequence[int]
    key: str = "0"
    offset: int = 0
    stride: Sequence[int] | None = None
    storage: str = "torch.FloatStorage"
    length: int | None = None

    def encode(self) -> bytes:
        stride = self.stride
        if stride is None:
            stride = [int(np.prod(self.shape[i + 1 :])) for i in range(len(self.shape))]
        length = self.offset + int(np.prod(self.shape)) if self.length is None else self.length
        place = b"(" + text("storage") + name(self.storage) + text(self.key) + text("cpu") + whole(length) + b"tQ"
        rest = (
            whole(self.offset) + sizes(self.shape) + sizes(stride) + b"\x89" + name("collections.OrderedDict") + b")R"
        )
        return name("torch._utils._rebuild_tensor_v2") + b"(" + place + rest + b"tR"


def state_dict(entries: Mapping[str, Entry | bytes]) -> bytes:
    """The pickle of a dictionary; a value as bytes stands for itself."""
    items = b"".join(text(key) + (e if isinstance(e, bytes) else e.encode()) for key, e in entries.items())
    return b"\x80\x02}(" + items + b"u."


def archive(pickle: bytes, storages: Mapping[str, bytes], *, folder: str = "archive", **extra: bytes) -> bytes:
    """A zip file with data.pkl, the storages and what `extra` adds, nothing compressed."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as file:
        file.writestr(f"{folder}/data.pkl", pickle)
        for key, raw in storages.items():
            file.writestr(f"{folder}/data/{key}", raw)
        for member, raw in ({"byteorder": b"little", "version": b"3\n"} | extra).items():
            file.writestr(f"{folder}/{member}", raw)
    return out.getvalue()


def torch_file(tensors: Mapping[str, np.ndarray]) -> bytes:
    """A sound file of float32 tensors, each with a storage of its own."""
    entries = {key: Entry(values.shape, str(i)) for i, (key, values) in enumerate(tensors.items())}
    return archive(
        state_dict(entries), {str(i): values.astype("<f4").tobytes() for i, values in enumerate(tensors.values())}
    )
