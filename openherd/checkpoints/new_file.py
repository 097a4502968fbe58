"""A file that appears whole or not at all, tensor after tensor, with what a killed run had finished kept if asked.

The bytes go to a partial file beside the target, which takes the target's name only when all of them are on the disk.
With a `resume_key` the partial file survives an interruption, and beside it a journal says which pieces it holds and
their SHA-256; a run with the same key and the same plan reads them again, keeps those that are right, and goes on.
Both go when the source is at fault (InputError), where going on would fail again. By its journal a partial file is told
from a file of the user's own under that name, which stays as it is. Without a key nothing is left behind.
Not covered: a kill between two system calls leaves the partial file of a run without a key, named `.NAME.XXXX.new`.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from openherd.checkpoints.partial_file import require_begun_by_us, require_no_strangers
from openherd.errors import InputError, OutputError

U8 = NDArray[np.uint8]
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_CHUNK = 1 << 22  # bytes read or hashed at a time
_FLUSHED = 1 << 25  # bytes written before the disk is asked for them


class BusyError(OutputError):
    """Another process writes the same file or folder."""


@dataclass(frozen=True, slots=True)
class Piece:
    """`nbytes` bytes at `offset` of the file; `chunks` makes them, in order, when their turn comes."""

    name: str
    offset: int
    nbytes: int
    chunks: Callable[[], Iterable[U8]]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a file is; `name` is the piece that was just finished."""

    name: str
    done: int
    total: int


OnProgress = Callable[[Progress], None]


def write_new_file(
    path: Path,
    head: bytes,
    pieces: Sequence[Piece],
    *,
    size: int,
    on_progress: OnProgress | None = None,
    resume_key: str | None = None,
    final_head: Callable[[], bytes] | None = None,
    new: bool = False,
) -> int:
    """Write `head`, then the pieces at their offsets, with zeros between them and after them up to `size` bytes.

    Returns how many pieces were taken over from an interrupted run. `final_head`, asked when the pieces are written,
    gives as many bytes to stand in the place of `head`.

    Pieces lie in order and do not overlap. An existing file of that name is replaced at the very end, and its owner and
    permissions stay; a link is replaced too, not what it leads to. With `new` nothing is replaced: what appeared there
    while the file was written is an OutputError. Raises OutputError (no space, no permission, another
    run at work), and InputError, before anything is touched, for what no run can have left under the partial file's
    name; what a piece's `chunks` raises goes through.
    """
    partial = _partial(path, resume_key)
    try:
        kept = fill_file(
            partial,
            head,
            pieces,
            size=size,
            on_progress=on_progress,
            resume_key=resume_key,
            final_head=final_head,
            named=path,
        )
        with explained(path, size):
            _take_name(partial, path, new)
            sync_folder(path.parent)
    except BaseException:
        if resume_key is None:
            partial.unlink(missing_ok=True)
        raise
    forget_journal(partial)
    return kept


def _take_name(partial: Path, path: Path, new: bool) -> None:
    """A link, unlike a new name, is never put in the place of a file; not every disk has links."""
    if not new:
        os.replace(partial, path)
        return
    try:
        os.link(partial, path)
    except OSError:
        if os.path.lexists(path):
            raise OutputError(f"{path} exists already, and did not before", hint="move it away") from None
        os.replace(partial, path)
    else:
        partial.unlink()


def fill_file(
    path: Path,
    head: bytes,
    pieces: Sequence[Piece],
    *,
    size: int,
    on_progress: OnProgress | None = None,
    resume_key: str | None = None,
    final_head: Callable[[], bytes] | None = None,
    named: Path | None = None,
) -> int:
    """`write_new_file` without the change of name, for a file whose folder is what appears whole: the file and its
    journal stay, and filling it again keeps what is right. `named` is the file that it will become: messages call it
    so, and what is at `path` before, in a folder that is the user's, must be a run's."""
    plan = hashlib.sha256(head)
    plan.update(json.dumps([resume_key, size, *((p.name, p.offset, p.nbytes) for p in pieces)]).encode())
    journal = _Journal(path, plan.hexdigest()) if resume_key is not None else None
    may_be_strangers = journal is not None and named is not None
    named = named or path
    with explained(named, size), _opened(path, named, may_be_strangers) as file:
        _keep_permissions(file, named)
        kept = journal.sound(file, pieces) if journal else 0
        _require_space(named, size - (pieces[kept - 1].offset + pieces[kept - 1].nbytes if kept else 0))
        flusher = _Flusher(file)
        try:
            with flusher:
                _write(file, head, pieces, kept, size, journal, flusher, on_progress)
            if final_head is not None:
                _write_again(file, head, final_head())
            flusher.finish()
        except InputError:  # while the lock is held: nobody else can have begun to use it
            path.unlink(missing_ok=True)
            forget_journal(path)
            raise
        finally:
            if flusher.failed:  # any of what the journal holds to be written may be lost
                path.unlink(missing_ok=True)
                forget_journal(path)
    return kept


@contextmanager
def _opened(path: Path, named: Path, may_be_strangers: bool) -> Iterator[BinaryIO]:
    """The partial file, locked. Raises BusyError, and InputError for what no run began, which is not touched."""
    journal = _Journal.path_of(path)
    if may_be_strangers:
        require_no_strangers(path, journal, named)
    with os.fdopen(_open(path), "r+b") as file:
        require_alone(file, path, named)
        if may_be_strangers:
            require_begun_by_us(path, journal, named)
        yield file


def _open(path: Path) -> int:
    """For writing what is there already too; never through a link that someone planted under the predictable name."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    handle = os.open(path, flags, 0o666)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "it is not a regular file")
    return handle


def _keep_permissions(file: BinaryIO, replaced: Path) -> None:
    """Owner and permissions of the file that `file` will replace, before there is anything in it to be read."""
    try:
        old = os.lstat(replaced)
    except FileNotFoundError:
        return
    if stat.S_ISREG(old.st_mode):
        with suppress(PermissionError):  # only root gives files away
            os.fchown(file.fileno(), old.st_uid, old.st_gid)
        with suppress(PermissionError):  # of a file system without permissions
            os.fchmod(file.fileno(), stat.S_IMODE(old.st_mode))


def forget_journal(path: Path) -> None:
    """Delete the journal of a file that is whole."""
    _Journal.path_of(path).unlink(missing_ok=True)


def write_new_text(path: Path, text: str | bytes) -> None:
    """A small file, whole or not at all."""
    data = np.frombuffer(text.encode() if isinstance(text, str) else text, np.uint8)
    write_new_file(path, b"", [Piece(path.name, 0, len(data), lambda: [data])], size=len(data))


def _partial(path: Path, resume_key: str | None) -> Path:
    return unfinished(path) if resume_key is not None else path.parent / f".{path.name}.{secrets.token_hex(4)}.new"


def unfinished(path: Path) -> Path:
    """Where a file or folder that can be taken up again lies until it is whole."""
    return path.parent / f".{path.name}.partial"


def require_own_partial(path: Path) -> None:
    """What `write_new_file` with a `resume_key` asks of the place of unfinished work, for who works long before it.
    Raises InputError."""
    partial = unfinished(path)
    require_no_strangers(partial, _Journal.path_of(partial), path)
    if partial.exists():
        require_begun_by_us(partial, _Journal.path_of(partial), path)


def require_alone(file: IO[Any], partial: Path, path: Path) -> None:
    """Lock `file`, opened as `partial`, until it is closed. Raises BusyError, which names `path`, when another process
    holds it, and when what was opened has become the target meanwhile."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(file.fileno()).st_ino == partial.stat().st_ino:
            return
    except (BlockingIOError, FileNotFoundError):
        pass
    raise BusyError(f"another process is writing {path}", hint="wait until it ends, or name another place")


def _write(
    file: BinaryIO,
    head: bytes,
    pieces: Sequence[Piece],
    kept: int,
    size: int,
    journal: _Journal | None,
    flusher: _Flusher,
    on_progress: OnProgress | None,
) -> None:
    file.seek(0)
    file.write(head)
    file.truncate(pieces[kept - 1].offset + pieces[kept - 1].nbytes if kept else len(head))
    for piece in pieces[kept:]:
        digest = hashlib.sha256()
        _write_piece(file, piece, flusher, digest.update if journal else None)
        if journal:
            file.flush()
            journal.add(piece, digest.hexdigest())
        if on_progress:
            on_progress(Progress(piece.name, piece.offset + piece.nbytes, size))
    file.truncate(size)


def _write_piece(file: BinaryIO, piece: Piece, flusher: _Flusher, see: Callable[[memoryview], None] | None) -> None:
    """`see` is shown what is written."""
    file.seek(piece.offset)
    written = 0
    for chunk in piece.chunks():
        data = np.ascontiguousarray(chunk).reshape(-1).data
        written += len(data)
        if written > piece.nbytes:
            break
        file.write(data)
        flusher.wrote(len(data))
        if see:
            see(data)
    if written != piece.nbytes:
        raise ValueError(f"{piece.name} was planned with {piece.nbytes} bytes and gave {written} or more")


class _Flusher:
    """Sends to the disk what is written while more of it is made, so that little is left to wait for at the end.

    The system tells of each of the disk's errors once: here it is raised, or `failed` says that there was one.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.failed = False
        self._file = file
        self._waiting = 0  # bytes that were not sent
        self._beside = ThreadPoolExecutor(1)
        self._sent: Future[None] | None = None

    def wrote(self, nbytes: int) -> None:
        self._waiting += nbytes
        if self._waiting >= _FLUSHED and (self._sent is None or self._sent.done()):
            self._raise_error()
            self._file.flush()
            self._waiting = 0
            with suppress(RuntimeError):  # no further thread to be had: `finish` sends all
                self._sent = self._beside.submit(self._sync)

    def __enter__(self) -> _Flusher:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self._beside.shutdown()
        if error is None:
            self._raise_error()

    def finish(self) -> None:
        self._file.flush()
        self._sync()

    def _sync(self) -> None:
        try:
            os.fsync(self._file.fileno())
        except OSError:
            self.failed = True
            raise

    def _raise_error(self) -> None:
        if self._sent is not None:
            self._sent.result()


def _write_again(file: BinaryIO, head: bytes, final: bytes) -> None:
    if len(final) != len(head):
        raise ValueError(f"a head of {len(head)} bytes cannot become one of {len(final)}")
    file.seek(0)
    file.write(final)


class _Journal:
    """The finished pieces of a partial file, a JSON line each under a line that names the plan."""

    def __init__(self, partial: Path, plan: str) -> None:
        self.path = self.path_of(partial)
        self._plan = plan

    @staticmethod
    def path_of(partial: Path) -> Path:
        return partial.with_name(partial.name + ".journal")

    def sound(self, file: BinaryIO, pieces: Sequence[Piece]) -> int:
        """How many pieces, from the first, the partial file really holds; the journal is cut to these."""
        kept: list[str] = []
        for piece, digest in zip(pieces, self._digests(), strict=False):
            if digest != _sha256(file, piece):
                break
            kept.append(digest)
        self._write("".join(json.dumps(line) + "\n" for line in [self._plan, *kept]))
        return len(kept)

    def _write(self, text: str) -> None:
        """Whole or not at all, so that an empty file under the journal's name is somebody else's."""
        fresh = _partial(self.path, None)
        try:
            with fresh.open("x") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(fresh, self.path)
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise

    def _digests(self) -> Iterator[str]:
        """What the journal says; nothing when it is of another plan. A line that a kill cut short is not JSON."""
        try:
            plan, *lines = self.path.read_text().splitlines()
            if json.loads(plan) == self._plan:
                for line in lines:
                    yield json.loads(line)
        except (OSError, ValueError):
            return

    def add(self, piece: Piece, digest: str) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(digest) + "\n")


def _sha256(file: BinaryIO, piece: Piece) -> str:
    digest, left = hashlib.sha256(), piece.nbytes
    file.seek(piece.offset)
    while left and (data := file.read(min(left, _CHUNK))):
        digest.update(data)
        left -= len(data)
    return digest.hexdigest()


def _require_space(path: Path, nbytes: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if free < nbytes:
        raise OutputError(
            f"the disk is full: {path} needs {nbytes / 1e6:.1f} MB more, {free / 1e6:.1f} MB are free",
            hint="free some space, or write to a folder on another disk",
        )


@contextmanager
def explained(path: Path, size: int | None = None) -> Iterator[None]:
    """Errors of the system in our words, with the size of what is written if it is known."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            free = shutil.disk_usage(path.parent).free
            full = "the disk is full" + (" for files so large (ulimit -f)" if error.errno == errno.EFBIG else "")
            takes = "could not be written" if size is None else f"takes {size / 1e6:.1f} MB"
            raise OutputError(
                f"{full}: {path} {takes}, {free / 1e6:.1f} MB are free",
                hint="free some space, or write to a folder on another disk",
            ) from None
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from None


def sync_folder(folder: Path) -> None:
    """The new name itself reaches the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
