"""The weights of a Hugging Face folder under their own names: one file or shards, safetensors or torch's.

With shards an index says which tensor lies in which file. The index and the shards must agree: every tensor that a
shard holds is in the index with that shard, every tensor of the index is there, and none is there twice. Names of
shards are names of files of the folder, never paths.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from openherd.checkpoints.json_keys import LARGE, read_json_keys
from openherd.checkpoints.mapped_file import give_back
from openherd.checkpoints.safetensors import read_safetensors
from openherd.checkpoints.source import Tensor
from openherd.checkpoints.torch_file import read_torch_file
from openherd.errors import FormatError, ModelNotFoundError

SAFETENSORS = "model.safetensors"
TORCH = "pytorch_model.bin"
# In the order in which transformers looks for them.
_FILES = (SAFETENSORS, f"{SAFETENSORS}.index.json", TORCH, f"{TORCH}.index.json")
# Llama 3.1 405B comes in 191 shards.
MAX_SHARDS = 4096

Ignored = Callable[[str], bool]


def weights_file(folder: Path) -> Path | None:
    """The file that holds the folder's weights, or the index of its shards; None when there is neither."""
    return next((folder / name for name in _FILES if (folder / name).exists()), None)


def read_weights(folder: Path, ignored: Ignored) -> tuple[dict[str, Tensor], tuple[Path, ...], str]:
    """(tensors by the files' own names, the files, "safetensors" or "torch"). Names that `ignored` knows may be absent.

    Raises FormatError, UnsupportedError, or ModelNotFoundError for a file that is missing.
    """
    path = weights_file(folder)
    if path is None:
        raise ModelNotFoundError(f"{folder} holds no weights: no {' and no '.join(_FILES)}")
    if path.suffix != ".json":
        return _read(path, ignored), (path,), _kind(path)
    return _read_shards(path, ignored)


def _kind(path: Path) -> str:
    return "safetensors" if path.suffix == ".safetensors" else "torch"


def _read_shards(index: Path, ignored: Ignored) -> tuple[dict[str, Tensor], tuple[Path, ...], str]:
    weight_map = _weight_map(index)
    ending = ".safetensors" if index.name.startswith(SAFETENSORS) else ".bin"
    names = sorted(set(weight_map.values()))
    if not names or len(names) > MAX_SHARDS:
        raise FormatError(f"{index} names {len(names)} shards; 1 to {MAX_SHARDS} are read")
    for name in names:
        if not _is_plain(name) or not name.endswith(ending):
            raise FormatError(f"{index}: the shard {name[:80]!r} is not the name of a {ending} file of the folder")
    tensors: dict[str, Tensor] = {}
    for name in names:
        for tensor_name, tensor in _read(index.parent / name, ignored).items():
            place = weight_map.get(tensor_name)
            if place != name:
                where = "nowhere" if place is None else f"in {place}"
                raise FormatError(f"{index}: {name} holds {tensor_name[:80]}, which should be {where}")
            tensors[tensor_name] = tensor
    for tensor_name, name in weight_map.items():
        if tensor_name not in tensors and not ignored(tensor_name):
            raise FormatError(f"{index}: {name} does not hold {tensor_name[:80]}")
    return tensors, tuple(index.parent / name for name in names), _kind(Path(names[0]))


def _weight_map(index: Path) -> dict[str, str]:
    keys = read_json_keys(index, limit=LARGE)
    weight_map: dict[str, str] = {}
    for key, value in keys.section("weight_map").items():
        if not isinstance(value, str):
            raise FormatError(f"{index}: weight_map must map names of tensors to names of files")
        weight_map[key.removeprefix("weight_map.")] = value
    return weight_map


def _is_plain(name: str) -> bool:
    return name not in ("", ".", "..") and not set(name) & set("/\\\0:")


def _read(path: Path, ignored: Ignored) -> dict[str, Tensor]:
    if _kind(path) == "torch":
        return read_torch_file(path, ignored=ignored)
    file = read_safetensors(path)
    return {
        name: Tensor(
            name,
            info.shape,
            info.type,
            partial(info.rows, file.data),
            partial(give_back, file.file, info.offset, info.nbytes),
        )
        for name, info in file.tensors.items()
        if not ignored(name)
    }
