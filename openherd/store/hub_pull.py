"""Fetches a model of a hub: announced, looked at, resumed, verified file by file, and there all at once or not at all.

Files come together in `models/.fetching/NAME`; each has the checksum that the hub publishes for the pinned commit
before it gets its name there, and the folder moves to its place in one step when all of them, and the record of where
they came from, are in it. A second process that wants the same model waits for the first.
"""

from __future__ import annotations

import errno
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from openherd.errors import DownloadError
from openherd.store.digest import sha256_of
from openherd.store.fit import Machine, check_fit
from openherd.store.home import fetching_folder, made, models_folder
from openherd.store.hub import DEFAULT_REVISION, Hub
from openherd.store.hub_answer import RemoteFile, Repository
from openherd.store.hub_files import Choice, choose, local_name
from openherd.store.hub_local import fetching_name, find_commits, find_hub_model, new_folder, noted, without
from openherd.store.hub_look import Piece, look_at
from openherd.store.hub_reference import HubReference, is_commit
from openherd.store.hub_settings import read_hub_settings
from openherd.store.local import (
    HubOrigin,
    LocalModel,
    Record,
    StoredFile,
    local_model,
    remove_model,
    rename_over,
    write_record,
)
from openherd.store.lock import exclusive
from openherd.store.progress import Progress, TerminalProgress, megabytes
from openherd.store.transfer import Job, transfer
from openherd.store.web import WebError

_DISK_IS_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_SLACK_BYTES = 1 << 20


def pull_from_hub(
    reference: HubReference,
    *,
    offline: bool = False,
    progress: Progress | None = None,
    verify: bool = False,
    context: int | None = None,
    machine: Machine | None = None,
    force: bool = False,
    pause: Callable[[float], None] = time.sleep,
) -> LocalModel:
    """The model, fetched if it is not here. Raises DownloadError, ModelNotFoundError, CapacityError, UnsupportedError.

    A model that is here stays at its commit: the hub is asked only for a branch or tag that is named, and for a model
    whose name is near one that is here. `context` is what the fit is checked for, `machine` whose memory; `force`
    fetches what does not fit or would not run.
    """
    here = find_hub_model(reference, exactly=True)
    is_pinned = reference.revision is None or is_commit(reference.revision)
    settings = read_hub_settings()
    may_not_ask = offline or settings.offline
    if here is not None and (is_pinned or may_not_ask):
        if not verify or _is_whole(here):
            return here
        assert here.record.hub is not None
        reference = HubReference(reference.repository, here.record.hub.variant, here.record.hub.commit)
    if may_not_ask:
        problem = "has a wrong checksum" if here else "is not on this machine"
        why = "--offline forbids" if offline else "HF_HUB_OFFLINE forbids"
        raise DownloadError(f"{reference} {problem}, and {why} fetching it", hint=f"try: herd pull {reference}")
    progress = progress or TerminalProgress()
    hub = Hub(settings, pause=pause)
    if hub.note:
        progress.say(f"  {hub.note}")
    repository = hub.repository(reference)
    fetch = _Fetch(hub, reference, repository, choose(repository, reference.select), progress, pause)
    with fetch.locked():
        commits = find_commits(fetch.names, fetch.choice.variant)
        present = commits.pop(repository.commit, None)
        if present is not None and (not verify or _is_whole(present)):
            return fetch.note(present, commits.values())
        fetch.prepare(present)
        fetch.announce()
        fetch.look(context, machine, force=force)
        fetch.bring()
        return fetch.install()


def _is_whole(model: LocalModel) -> bool:
    return all(sha256_of(model.folder / file.name) == file.sha256 for file in model.record.files)


def _rewrite(model: LocalModel, hub: HubOrigin) -> LocalModel:
    """`model` with what is now known of its origin."""
    if hub == model.record.hub:
        return model
    record = replace(model.record, hub=hub)
    write_record(model.folder, record)
    return LocalModel(record, model.folder)


def _partial_names(choice: Choice) -> dict[str, str]:
    """By path. Named by what it must become, so that a moved branch never continues another file's bytes; files of the
    same bytes are counted, so that each comes by itself.
    """
    names, seen = {}, Counter[str]()
    for file in choice.files:
        assert file.pinned is not None
        digest = file.pinned.digest[:24]
        seen[digest] += 1
        names[file.path] = f"{digest}.partial" if seen[digest] == 1 else f"{digest}-{seen[digest]}.partial"
    return names


class _Fetch:
    """One model on its way here. The methods are the steps, in their order."""

    def __init__(
        self,
        hub: Hub,
        reference: HubReference,
        repository: Repository,
        choice: Choice,
        progress: Progress,
        pause: Callable[[float], None],
    ) -> None:
        self.hub, self.reference, self.repository, self.choice = hub, reference, repository, choice
        self.progress, self.pause = progress, pause
        name = fetching_name(repository.name, choice.variant)
        self.folder = fetching_folder() / name
        self.lock = fetching_folder() / f"{name}.lock"
        self.name = f"hf:{repository.name}:{choice.variant}"
        self.names = (repository.name, reference.repository)  # the hub follows a renamed repository
        self.partials = _partial_names(choice)
        self.asked = reference.revision or DEFAULT_REVISION
        self.origin = HubOrigin(repository.name, choice.variant, self.asked, repository.commit, files=())

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Alone with this model, and the disk's errors in words; a full disk gets back what this fetch took."""
        try:
            made(self.lock.parent)
            with exclusive(self.lock, on_wait=self._say_waiting):
                try:
                    yield
                finally:
                    self._drop_what_is_empty()
        except OSError as error:
            if error.errno not in _DISK_IS_FULL:
                raise DownloadError(
                    f"cannot write {error.filename or self.folder}: {error.strerror or error}"
                ) from error
            shutil.rmtree(self.folder, ignore_errors=True)
            raise DownloadError(
                f"the disk became full while fetching {self.name}; nothing was kept in {models_folder()}",
                hint="free some space, or set OPENHERD_HOME to a folder on another disk",
            ) from error

    def _drop_what_is_empty(self) -> None:
        """Leave no folder behind in which nothing came: there is nothing to resume, nor to remove by hand."""
        with suppress(OSError):
            for path in self.folder.iterdir():
                if path.is_file() and not path.stat().st_size:
                    path.unlink()
            self.folder.rmdir()

    def _say_waiting(self) -> None:
        self.progress.say(f"another process is fetching {self.name}; waiting for it")

    def note(self, model: LocalModel, others: Iterable[LocalModel]) -> LocalModel:
        """The model that is here already, which from now on is found by the name and the revision asked for as well.

        The revision no longer means any of the `others`, which may have been fetched later.
        """
        for other in others:
            if other.record.hub:
                _rewrite(other, without(other.record.hub, self.asked))
        assert model.record.hub is not None
        return _rewrite(model, noted(model.record.hub, self.asked, self.names))

    def prepare(self, damaged: LocalModel | None) -> None:
        """Keep of an earlier attempt, and of a model with a wrong checksum, what is right or can be resumed."""
        made(self.folder)
        if damaged is not None:
            assert damaged.record.hub is not None
            self.origin = damaged.record.hub  # with all that it was asked for by
            for stored in damaged.record.files:
                if not (kept := self.folder / stored.name).exists():
                    shutil.move(damaged.folder / stored.name, kept)  # to another disk where its folder is a link
            remove_model(damaged)
        wanted = {local_name(file.path): file for file in self.choice.files}
        partials = {self._partial(file) for file in self.choice.files}
        for path in self.folder.iterdir():
            file = wanted.get(path.name)
            right = file is not None and file.pinned is not None and path.is_file() and file.pinned.matches(path)
            if not right and path not in partials:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    def announce(self) -> None:
        repository, choice = self.repository, self.choice
        names = ", ".join(local_name(file.path) for file in choice.files[:8])
        more = f" and {len(choice.files) - 8} more" if len(choice.files) > 8 else ""
        page = f"{self.hub.settings.endpoint}/{repository.name}"
        licence = repository.licence or f"the hub names none; see {page}"
        link = f" ({repository.licence_link})" if repository.licence_link.startswith("https://") else ""
        gated = "; gated: its owner asks you to accept its terms" if repository.gated else ""
        self.progress.say(
            f"fetching {self.name}\n"
            f"  from     {page}, commit {repository.commit}{'' if is_commit(self.asked) else f' ({self.asked})'}\n"
            f"  size     {megabytes(choice.size)}: {names}{more}\n"
            f"  licence  {licence}{link}{gated}\n"
            f"  to       {self._target()}"
        )
        missing = self._missing_bytes()
        if missing < choice.size:
            self.progress.say(f"  resuming: {megabytes(choice.size - missing)} are here")
        free = shutil.disk_usage(self.folder).free
        needed = missing + _SLACK_BYTES
        if free < needed:
            raise DownloadError(
                f"the disk is full: {megabytes(needed)} are needed in {models_folder()}, {megabytes(free)} are free",
                hint="free some space, or set OPENHERD_HOME to a folder on another disk",
            )

    def look(self, context: int | None, machine: Machine | None, *, force: bool) -> None:
        """Say what it takes of memory, from its header where that can be read; refuse what cannot run here."""
        pieces = [
            Piece(
                file, self.hub.address(self.repository, file), self._partial(file), self.folder / local_name(file.path)
            )
            for file in self.choice.files
        ]
        try:
            need = look_at(self.hub.web, pieces, self.choice.main, self.choice.size, pause=self.pause)
        except WebError as error:
            raise self.hub.explained(error, self.reference) from error
        self.progress.say(f"  memory   {need.said(context, machine)}")
        if not force:
            check_fit(need, context, machine, hint="--force fetches it all the same")

    def bring(self) -> None:
        """Complete every file that is not here yet."""
        jobs = [
            Job(self.hub.address(self.repository, file), self._partial(file), path, file.pinned)
            for file in self.choice.files
            if file.pinned is not None and not (path := self._place(file)).exists()
        ]
        had = self.choice.size - sum(job.pinned.size for job in jobs)
        if jobs:
            transfer(self.hub.web, jobs, self.progress, had=had, pause=self.pause, explain=self._explained)

    def _explained(self, job: Job, error: BaseException) -> BaseException:
        return self.hub.explained(error, self.reference, job.target.name) if isinstance(error, WebError) else error

    def install(self) -> LocalModel:
        """Record what was verified, and let the model appear under its name in one rename."""
        places = [(self._place(file), file.path) for file in self.choice.files]
        stored = tuple(StoredFile(at.name, at.stat().st_size, sha256_of(at), path) for at, path in places)
        hub = noted(replace(self.origin, files=stored), self.asked, self.names)
        main = next((file for file in stored if file.name == self.choice.main), None)
        source = f"{self.hub.settings.endpoint}/{self.repository.name}/tree/{self.repository.commit}"
        now = datetime.now(UTC).isoformat(timespec="microseconds")
        size, sha256 = sum(file.size for file in stored), main.sha256 if main else ""
        record = Record(self.name, self.choice.main, size, sha256, self.repository.licence, source, now, hub)
        write_record(self.folder, record)
        target = self._target()
        rename_over(self.folder, target)
        model = local_model(target.name)
        assert model is not None
        self.progress.say(f"  checksums right; kept as {model.path}")
        return model

    def _target(self) -> Path:
        return new_folder(self.repository.name, self.choice.variant, self.repository.commit)

    def _partial(self, file: RemoteFile) -> Path:
        return self.folder / self.partials[file.path]

    def _place(self, file: RemoteFile) -> Path:
        return self.folder / local_name(file.path)

    def _missing_bytes(self) -> int:
        missing = 0
        for file in self.choice.files:
            partial = self._partial(file)
            had = partial.stat().st_size if partial.exists() else 0
            missing += 0 if self._place(file).exists() else max(file.size - had, 0)
        return missing
