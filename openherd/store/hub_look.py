"""The beginnings of a model's files on a hub: enough to know what the model is and what memory it takes.

What is read here is the beginning of the download itself, in its partial files: nothing is fetched twice. From it a
hollow copy is made, whose files have their headers and their lengths, and holes where the tensors will be; the readers
of whole models read it. Not covered: pickled weights, whose directory is at their end, and models of very many files;
these are judged by `config.json`, or by their size alone.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from openherd.checkpoints.gguf_header import read_header
from openherd.errors import FormatError, HerdError
from openherd.store.download import begin, download
from openherd.store.fit import Need, need_of_config, need_of_folder, need_of_gguf
from openherd.store.hub_answer import RemoteFile
from openherd.store.web import Web

HOLLOW = "looked-at"
MOST_FILES = 16
"""More are not looked into one by one: each costs a request before anything is said."""
_HEADER_BYTES = (1 << 20, 8 << 20, 48 << 20)
"""One after the other until a header is whole: a tokenizer makes most of it."""
_MOST_SETTINGS_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Piece:
    """A file of the model: its address, and where it comes together here."""

    file: RemoteFile
    url: str
    partial: Path
    target: Path


def look_at(
    web: Web, pieces: Sequence[Piece], main: str, size: int, *, pause: Callable[[float], None] = lambda _: None
) -> Need:
    """What the model of these files needs, `size` bytes in all; `main` is its GGUF file, "" for a folder.

    Raises WebError, and DownloadError for settings with a wrong checksum.
    """
    settings = [] if main else [piece for piece in pieces if _is_settings(piece.file)]
    weights = [piece for piece in pieces if piece.file.path.endswith((".gguf", ".safetensors"))]
    for piece in settings:
        _bring(web, piece, pause)
    config = next((piece.target.read_bytes() for piece in settings if piece.target.name == "config.json"), b"")
    by_config = need_of_config(config, size) if config else Need(size)
    if by_config.unsupported or not 0 < len(weights) <= MOST_FILES:
        return by_config
    hollow = weights[0].target.with_name(HOLLOW)
    try:
        hollow.mkdir(exist_ok=True)
        for piece in settings:
            shutil.copyfile(piece.target, hollow / piece.target.name)
        if not all(_hollow_out(web, piece, hollow / piece.target.name, pause) for piece in weights):
            return by_config
        return (need_of_gguf(hollow / main, size) if main else need_of_folder(hollow, size)) or by_config
    except OSError:  # a disk that makes no holes: the download will say what is wrong with it
        return by_config
    finally:
        shutil.rmtree(hollow, ignore_errors=True)


def _is_settings(file: RemoteFile) -> bool:
    """What a config is made of: not the tokenizer's files, which may be large and say nothing of memory."""
    name = file.path.rsplit("/", 1)[-1]
    is_named = name in ("config.json", "generation_config.json") or name.endswith(".index.json")
    return is_named and file.size <= _MOST_SETTINGS_BYTES


def _bring(web: Web, piece: Piece, pause: Callable[[float], None]) -> None:
    if not piece.target.exists():
        assert piece.file.pinned is not None
        download(web, piece.url, piece.partial, piece.file.pinned, _Quiet(), pause=pause)
        piece.partial.replace(piece.target)


def _hollow_out(web: Web, piece: Piece, copy: Path, pause: Callable[[float], None]) -> bool:
    """Make `copy` of the file's header and a hole; False when no header was found in what is read of a file."""
    if piece.target.exists():
        return _copy_beginning(piece.target, copy, piece.file.size)
    for wanted in _HEADER_BYTES:
        wanted = min(wanted, piece.file.size)
        begin(web, piece.url, piece.partial, wanted, pause=pause)
        if _copy_beginning(piece.partial, copy, piece.file.size):
            return True
        if wanted == piece.file.size:
            break
    return False


def _copy_beginning(source: Path, copy: Path, size: int) -> bool:
    """Whether the beginning of `source` holds the header; `copy` then has it, and is `size` bytes long."""
    with source.open("rb") as read, copy.open("wb") as written:
        beginning = read.read(_HEADER_BYTES[-1])
        written.write(beginning)
        written.truncate(size)
    if copy.suffix == ".safetensors":
        return len(beginning) >= 8 + int.from_bytes(beginning[:8].ljust(8, b"\xff"), "little")
    try:
        read_header(copy)
    except FormatError:
        return False
    except HerdError:  # whole, and of a kind that openherd does not read
        return True
    return True


class _Quiet:
    """Progress of small files that nobody waits for."""

    def say(self, text: str) -> None:
        pass

    def advance(self, done: int, total: int) -> None:
        pass

    def finish(self) -> None:
        pass
