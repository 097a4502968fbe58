"""Named tensors in a folder of safetensors files, each process writing the shards that it holds.

By torch.distributed.checkpoint (DCP) with Hugging Face storage: every file's header says where its pieces lie in the
whole tensors, so there is no index beside them (DCP's own would be a pickle) and a world of any size reads the folder,
as it reads the plain file that a world of one writes (`saved_tensors`).
Between processes DCP exchanges its plans as Python objects over the process group; from files nothing is unpickled.
"""

from __future__ import annotations

import errno
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, cast

from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load as read_planned
from torch.distributed.checkpoint.state_dict_saver import save as write_planned

from openherd.checkpoints.new_file import sync_folder
from openherd.errors import FormatError, OptionError, OutputError

if TYPE_CHECKING:
    from openherd.train.parallel.world import World

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FILE_BYTES = 1 << 30  # a file is put together in memory before it is written


def save(world: World, folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """See `World.save_tensors`."""
    _require_safetensors()
    held: dict[str, Any] = {name: tensor.detach() for name, tensor in tensors.items()}
    writer = HuggingFaceStorageWriter(str(folder), _files_of(held), save_distributed=True)
    try:
        write_planned(held, storage_writer=writer)
    except CheckpointException as error:
        _explain_writing(folder, error)
    if world.is_main:
        sync_folder(folder)


def load(world: World, folder: Path, into: Mapping[str, Tensor]) -> None:
    """See `World.load_tensors`."""
    _require_safetensors()
    held: dict[str, Any] = {name: tensor.detach() for name, tensor in into.items()}
    reader = HuggingFaceStorageReader(str(folder))
    _require_whole(reader, folder, held)
    try:
        with _quiet():
            read_planned(held, storage_reader=reader, no_dist=world.num_processes == 1)
    except CheckpointException as error:
        raise FormatError(f"{folder}: {_first(error)}") from None


@contextmanager
def _quiet() -> Iterator[None]:
    """That one process is alone is no surprise here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


def _files_of(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Which file, from 1, each tensor goes to: in order, a new one where the last would grow beyond a bound."""
    files, size, file = {}, 0, 1
    for name, tensor in tensors.items():
        nbytes = tensor.numel() * tensor.element_size()
        if size and size + nbytes > _FILE_BYTES:
            file, size = file + 1, 0
        files[name], size = file, size + nbytes
    return files


def _require_whole(reader: HuggingFaceStorageReader, folder: Path, wanted: Mapping[str, Tensor]) -> None:
    """Every wanted tensor is there in that shape and type, and its pieces are as large as it: DCP would leave what no
    file holds as it was."""
    try:
        held = cast(dict[str, TensorStorageMetadata], reader.read_metadata().state_dict_metadata)
    except Exception as error:  # of the safetensors library, of JSON, of a header's keys: a stranger's file
        raise FormatError(f"{folder} holds no sound safetensors files: {error}") from None
    for name, tensor in wanted.items():
        if name not in held:
            raise FormatError(f"{folder}: the tensor {name} is missing")
        of_file = held[name]
        shape, dtype = tuple(of_file.size), of_file.properties.dtype
        if shape != tuple(tensor.shape) or dtype != tensor.dtype:
            raise FormatError(
                f"{folder}: {name} is {dtype} {list(shape)}, and {tensor.dtype} {list(tensor.shape)} is needed"
            )
        if sum(chunk.sizes.numel() for chunk in of_file.chunks) != tensor.numel():
            raise FormatError(f"{folder}: parts of the tensor {name} are missing; was a file removed?")


def _explain_writing(folder: Path, error: CheckpointException) -> NoReturn:
    cause = _first(error)
    if isinstance(cause, OSError) and cause.errno in _FULL:
        free = shutil.disk_usage(folder.parent).free / 1e6
        raise OutputError(
            f"the disk is full: {folder} could not be written, {free:.1f} MB are free",
            hint="free some space, or write to a folder on another disk",
        ) from None
    if isinstance(cause, OSError):
        raise OutputError(f"cannot write {folder}: {cause.strerror or cause}") from None
    raise cause


def _first(error: CheckpointException) -> BaseException:
    """What went wrong in the first of the processes in which something did."""
    cause, _ = error.failures[min(error.failures)]
    return cause


def _require_safetensors() -> None:
    try:
        import safetensors  # noqa: F401
    except ModuleNotFoundError:
        raise OptionError(
            "checkpoints are written by the package safetensors, which is not installed",
            hint="try: pip install 'openherd[train]'",
        ) from None
