"""Brings one pinned file here: resumed after an interruption, verified as a whole, never longer than it should be.

The partial file is the only state. Its checksum is that of what lies on the disk, so bytes that a crash left wrong are
found; a resumed file whose checksum is wrong is fetched once more from its beginning.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from openherd.errors import DownloadError
from openherd.store.digest import Pinned
from openherd.store.patience import Patience
from openherd.store.progress import Progress, megabytes
from openherd.store.web import SlowError, UnreachableError, Web, without_credentials

CHUNK_BYTES = 1 << 18


class ChecksumError(DownloadError):
    """The bytes that came are not the bytes that were pinned."""


def download(
    web: Web,
    url: str,
    partial: Path,
    pinned: Pinned,
    progress: Progress,
    *,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Complete `partial` from `url`. Raises DownloadError, RefusedError of the server, OSError of the disk.

    After a cut connection `partial` stays for the next attempt; after a wrong size or checksum it is removed.
    """
    had = partial.exists() and partial.stat().st_size > 0
    _transfer(web, url, partial, pinned, progress, pause)
    right = pinned.matches(partial)
    if had and not right:
        progress.say("the resumed download has a wrong checksum; fetching it again from the beginning")
        partial.unlink()
        _transfer(web, url, partial, pinned, progress, pause)
        right = pinned.matches(partial)
    if not right:
        partial.unlink()
        raise ChecksumError(
            f"what {without_credentials(url)} sent has a wrong checksum ({pinned.kind} is not {pinned.digest})",
            hint="nothing of it was kept; check the index, hub or mirror that is configured, then try again",
        )


def begin(web: Web, url: str, partial: Path, length: int, *, pause: Callable[[float], None] = time.sleep) -> None:
    """Lengthen `partial` to the first `length` bytes of what is at `url`, to be looked at before they are verified.

    Raises RefusedError, UnreachableError, DownloadError, OSError.
    """
    with partial.open("ab") as file:
        _lengthen(web, url, file, length, pause, lambda: None, is_beginning=True)


def _transfer(
    web: Web, url: str, partial: Path, pinned: Pinned, progress: Progress, pause: Callable[[float], None]
) -> None:
    """Append to `partial` until it has the pinned size, through as many connections as that takes."""
    with partial.open("ab") as file:
        try:
            _lengthen(
                web, url, file, pinned.size, pause, lambda: progress.advance(min(file.tell(), pinned.size), pinned.size)
            )
            os.fsync(file.fileno())
        except UnreachableError as error:
            raise DownloadError(
                f"fetching {without_credentials(url)} failed: {error}",
                hint=f"{megabytes(file.tell())} of {megabytes(pinned.size)} are kept; run the same command again to go "
                "on from there",
            ) from error
        finally:
            progress.finish()
    if partial.stat().st_size > pinned.size:
        partial.unlink()
        raise ChecksumError(f"{without_credentials(url)} sent more than the {pinned.size} bytes that were pinned")


def _lengthen(
    web: Web,
    url: str,
    file: BinaryIO,
    length: int,
    pause: Callable[[float], None],
    advanced: Callable[[], None],
    *,
    is_beginning: bool = False,
) -> None:
    """Append until `file` has `length` bytes, or more where the server sends more."""
    patience = Patience(pause)
    while (had := file.tell()) < length:
        try:
            _append(web, url, file, length, advanced, is_beginning=is_beginning)
        except UnreachableError as error:
            if file.tell() > had and not isinstance(error, SlowError):
                patience.gained()
            else:
                patience.failed(error)


def _append(
    web: Web, url: str, file: BinaryIO, length: int, advanced: Callable[[], None], *, is_beginning: bool
) -> None:
    """One connection: from where `file` ends to `length`. Raises UnreachableError when it stops before."""
    had = file.tell()
    end = str(length - 1) if is_beginning else ""
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={had}-{end}"} if had or is_beginning else {})
    with web.open(url, headers) as response:
        if had and not (response.status == 206 and response.header("Content-Range").startswith(f"bytes {had}-")):
            file.truncate(0)  # the server does not resume: this is the whole file again
            file.seek(0)
        for chunk in response.chunks(CHUNK_BYTES):
            file.write(chunk[: length - file.tell()] if is_beginning else chunk)
            advanced()
            if file.tell() > length or (is_beginning and file.tell() == length):
                return
    if file.tell() < length:
        raise UnreachableError("the connection ended early")
