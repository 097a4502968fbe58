"""Brings one pinned file here: resumed after an interruption, hashed on the way, never longer than it should be.

The partial file is the only state. It is hashed again before a resume, so bytes that a crash left wrong are found at
the end; a resumed file whose checksum is wrong is fetched once more from its beginning.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from openherd.errors import DownloadError
from openherd.store.progress import Progress, megabytes
from openherd.store.web import UnreachableError, Web, without_credentials

CHUNK_BYTES = 1 << 18
MAX_FAILURES = 4
"""Cut connections in a row without a single new byte before the fetch is given up."""


@dataclass(frozen=True, slots=True)
class Pinned:
    """What the file must be."""

    size: int
    sha256: str


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
    had = partial.stat().st_size if partial.exists() else 0
    resumed = had > 0
    if resumed:
        progress.say(f"  resuming at {megabytes(had)}")
    _transfer(web, url, partial, pinned, progress, pause)
    if resumed and not _is_right(partial, pinned):
        progress.say("the resumed download has a wrong checksum; fetching it again from the beginning")
        partial.unlink()
        _transfer(web, url, partial, pinned, progress, pause)
    if not _is_right(partial, pinned):
        partial.unlink()
        raise ChecksumError(
            f"what {without_credentials(url)} sent has a wrong checksum (SHA-256 is not {pinned.sha256})",
            hint="nothing was kept; check the package index that pip is configured for, then try again",
        )


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_right(path: Path, pinned: Pinned) -> bool:
    return path.stat().st_size == pinned.size and sha256_of(path) == pinned.sha256


def _transfer(
    web: Web, url: str, partial: Path, pinned: Pinned, progress: Progress, pause: Callable[[float], None]
) -> None:
    """Append to `partial` until it has the pinned size, through as many connections as that takes."""
    failures = 0
    with partial.open("ab") as file:
        try:
            while (had := file.tell()) < pinned.size:
                reason = _append(web, url, file, pinned, progress)
                failures = failures + 1 if file.tell() <= had else 0
                if failures >= MAX_FAILURES:
                    raise _interrupted(url, reason, file.tell(), pinned.size)
                if failures:
                    pause(2.0 ** (failures - 1))
            os.fsync(file.fileno())
        finally:
            progress.finish()
    if partial.stat().st_size > pinned.size:
        partial.unlink()
        raise ChecksumError(f"{without_credentials(url)} sent more than the {pinned.size} bytes that were pinned")


def _append(web: Web, url: str, file: BinaryIO, pinned: Pinned, progress: Progress) -> str:
    """One connection: from where `file` ends to where the server stops. Returns why it stopped."""
    had = file.tell()
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={had}-"} if had else {})
    try:
        with web.open(url, headers) as response:
            if had and not (response.status == 206 and response.header("Content-Range").startswith(f"bytes {had}-")):
                file.truncate(0)  # the server does not resume: this is the whole file again
                file.seek(0)
            for chunk in response.chunks(CHUNK_BYTES):
                file.write(chunk)
                progress.advance(min(file.tell(), pinned.size), pinned.size)
                if file.tell() > pinned.size:
                    return "more bytes than were pinned"
    except UnreachableError as error:
        return str(error)
    return "the connection ended early"


def _interrupted(url: str, reason: str, done: int, total: int) -> DownloadError:
    return DownloadError(
        f"fetching {without_credentials(url)} failed: {reason}",
        hint=f"{megabytes(done)} of {megabytes(total)} are kept; run the same command again to go on from there",
    )
