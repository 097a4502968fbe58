"""What the inputs of each linear map are like on some text: the mean square of every column.

An error e of a weight adds e * x to an output, so over a text its square counts by the mean of x^2 (LeCun, Denker
and Solla 1990, the diagonal of a linear map's Hessian). The quantisers take these as weights.

The file is a GGUF file as llama.cpp's tools write and read it ("imatrix"): general.type is "imatrix",
imatrix.datasets names the texts, imatrix.chunk_count and imatrix.chunk_size say how much was read; for a tensor NAME
of width K the file holds NAME.in_sum2, float32 [E, K], the sums of squares, and NAME.counts, float32 [E, 1], how many
rows were summed, with E the number of experts or 1. Not covered: the older form of the same tools, which is no GGUF.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from openherd.checkpoints.gguf_header import GGUFHeader, read_header
from openherd.checkpoints.gguf_keys import Keys
from openherd.checkpoints.gguf_writer import KeyValue, PlannedTensor, write_gguf
from openherd.errors import FormatError
from openherd.quant.dequantize import dequantize
from openherd.quant.types import BLOCK_TYPES

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
_SUMS, _COUNTS = ".in_sum2", ".counts"
# A column that the text never used still counts a little: another text may use it.
_LEAST = 1e-4


@dataclass(frozen=True, slots=True)
class Importance:
    """Sums of squares [E, K] and counts [E] by GGUF's name of the weight, and where they come from."""

    sums: Mapping[str, F64]
    counts: Mapping[str, F64]
    texts: tuple[str, ...]  # file names
    num_chunks: int
    chunk_len: int  # tokens

    def covers(self, name: str, shape: tuple[int, ...]) -> bool:
        """Whether the text says something of the weight [N, K], or [E, N, K] of experts.

        Raises FormatError when it is for another number of columns or experts; one for all experts will do.
        """
        sums = self.sums.get(name)
        if sums is None:
            return False
        n_experts = shape[0] if len(shape) > 2 else 1
        if sums.shape[1] != shape[-1]:
            raise FormatError(
                f"the importance of {name} is for {sums.shape[1]} columns, and the weight has {shape[-1]}"
            )
        if len(sums) not in (1, n_experts):
            raise FormatError(f"the importance of {name} is for {len(sums)} experts, and the weight has {n_experts}")
        return True

    def of(self, name: str, shape: tuple[int, ...]) -> F32 | None:
        """What each column of the weight counts, mean 1: [E or 1, K]; None where the text says nothing of this one.

        Raises what `covers` raises.
        """
        if not self.covers(name, shape):
            return None
        sums = self.sums[name]
        mean = sums / np.maximum(self.counts[name], 1.0)[:, None]
        scale = mean.mean(axis=1, keepdims=True)
        flat = np.where(scale > 0, mean / np.where(scale > 0, scale, 1.0), 1.0)
        return np.maximum(flat, _LEAST).astype(np.float32)

    def digest(self) -> str:
        """SHA-256 over names, sums and counts, by which a recipe names them."""
        digest = hashlib.sha256()
        for name in sorted(self.sums):
            digest.update(name.encode() + b"\0")
            digest.update(self.sums[name].astype("<f4").tobytes() + self.counts[name].astype("<f4").tobytes())
        return digest.hexdigest()


def write_importance(path: Path, importance: Importance) -> None:
    """Raises OutputError when the file cannot be written."""
    keys: dict[str, KeyValue] = {
        "general.type": "imatrix",
        "imatrix.datasets": list(importance.texts),
        "imatrix.chunk_count": importance.num_chunks,
        "imatrix.chunk_size": importance.chunk_len,
    }
    tensors = []
    for name, sums in importance.sums.items():
        tensors.append(_planned(f"{name}{_SUMS}", sums))
        tensors.append(_planned(f"{name}{_COUNTS}", importance.counts[name][:, None]))
    write_gguf(path, keys, tensors)


def read_importance(path: Path) -> Importance:
    """Raises FormatError for what is not such a file, ModelNotFoundError where there is none."""
    header = read_header(path)
    keys = Keys(path, header.keys)
    kind = keys.text("general.type") if "general.type" in keys else "model"
    if kind != "imatrix":
        raise FormatError(
            f"{path} is no importance matrix: its general.type is {kind!r}, not 'imatrix'",
            hint="herd quantize MODEL OUT --calibrate TEXT --importance FILE makes one",
        )
    sums, counts = {}, {}
    for name in header.tensors:
        if name.endswith(_SUMS):
            weight = name.removesuffix(_SUMS)
            sums[weight] = _matrix(header, name)
            counts[weight] = _counts(header, weight, len(sums[weight]))
    if not sums:
        raise FormatError(f"{path} is an importance matrix without entries")
    texts = tuple(keys.strings("imatrix.datasets")) if "imatrix.datasets" in keys else ()
    return Importance(sums, counts, texts, keys.whole("imatrix.chunk_count", 0), keys.whole("imatrix.chunk_size", 0))


def _planned(name: str, values: F64) -> PlannedTensor:
    data = np.ascontiguousarray(values, "<f4")
    return PlannedTensor(name, data.shape, BLOCK_TYPES["F32"], lambda: [data.reshape(-1).view(np.uint8)])


def _matrix(header: GGUFHeader, name: str) -> F64:
    """[E, K] of finite numbers that are not negative."""
    info = header.tensors[name]
    if info.type.name != "F32":
        raise FormatError(f"{header.path}: {name} must be F32, not {info.type.name}")
    values = dequantize(info.rows(header.data), info.type)
    if not (np.isfinite(values).all() and (values >= 0).all()):
        raise FormatError(f"{header.path}: {name} must hold finite numbers of at least 0")
    return values.astype(np.float64)  # last: NumPy warns of a signalling NaN that it widens


def _counts(header: GGUFHeader, weight: str, n_experts: int) -> F64:
    name = weight + _COUNTS
    if name not in header.tensors:
        raise FormatError(f"{header.path}: {weight}{_SUMS} has no {name} beside it")
    counts = _matrix(header, name).reshape(-1)
    if len(counts) != n_experts:
        raise FormatError(f"{header.path}: {name} has {len(counts)} counts for {n_experts} experts")
    return counts
