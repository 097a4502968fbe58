"""A hub of models over its public API: what a repository has, and where its files are.

Written here rather than left to `huggingface_hub`: that one throws away what an interrupted process had fetched, checks
no SHA-256, puts no bound on what a server sends, writes outside OPENHERD_HOME, and tells the hub about the programs
around it. The variables and the token file that it knows are honoured (see `hub_settings`), and it is run against the
tests' stand-in of the hub, to show that the stand-in is true. Not covered: Xet, the hub's chunked storage, in its own
protocol; its files come through the hub's bridge to plain HTTP.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from urllib.parse import quote

from openherd.errors import DownloadError, FormatError, HerdError, ModelNotFoundError
from openherd.store.hub_answer import MAX_ANSWER_BYTES, RemoteFile, Repository, printable, read_repository
from openherd.store.hub_reference import HubReference, is_repository_name
from openherd.store.hub_settings import HubSettings, may_carry_token
from openherd.store.patience import patiently
from openherd.store.web import UnreachableError, Web, WebError, origin

DEFAULT_REVISION = "main"


class Hub:
    """One hub, asked as one person. `note` says once what the person should know of how it is asked, or is None."""

    def __init__(self, settings: HubSettings, *, pause: Callable[[float], None] = time.sleep) -> None:
        self.settings = settings
        self.pause = pause
        self.note: str | None = None
        authorization: dict[str, str] = {}
        if settings.token is not None:
            if may_carry_token(settings.endpoint):
                authorization[origin(settings.endpoint)] = f"Bearer {settings.token}"
            else:
                self.note = f"the token of {settings.token_source} is not sent to {settings.endpoint}: it is not https"
        certificates = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or None
        self.web = Web(certificates=certificates, authorization=authorization)

    def repository(self, reference: HubReference) -> Repository:
        """What the asked revision has. Raises ModelNotFoundError, DownloadError, FormatError."""
        name, revision = reference.repository, reference.revision or DEFAULT_REVISION
        url = f"{self.settings.endpoint}/api/models/{quote(name)}/revision/{quote(revision, safe='')}?blobs=true"

        def ask() -> bytes:
            with self.web.open(url, {"Accept": "application/json"}) as response:
                return response.text(MAX_ANSWER_BYTES)

        try:
            body = patiently(ask, self.pause)
        except WebError as error:
            raise self.explained(error, reference) from error
        repository = read_repository(body, name)
        if not is_repository_name(repository.name):
            raise FormatError(f"the hub's answer about {name} is about {repository.name!r}, which is no repository")
        return repository

    def address(self, repository: Repository, file: RemoteFile) -> str:
        """Where the file's bytes at exactly this commit are."""
        return f"{self.settings.endpoint}/{quote(repository.name)}/resolve/{repository.commit}/{quote(file.path)}"

    def explained(self, error: WebError, reference: HubReference, file: str | None = None) -> HerdError:
        """What the hub's refusal means, and what to do about it."""
        page = f"{self.settings.endpoint}/{reference.repository}"
        code = str(error.headers.get("X-Error-Code", ""))
        said = printable(str(error.headers.get("X-Error-Message", "")))
        if isinstance(error, UnreachableError):
            return self._unreachable(error)
        if code == "GatedRepo":
            return self._gated(reference, page, said)
        if code == "RevisionNotFound":
            return ModelNotFoundError(
                f"{reference.repository} has no revision {reference.revision or DEFAULT_REVISION!r}",
                hint=f"its revisions: {page}/commits",
            )
        if code == "EntryNotFound":
            return ModelNotFoundError(
                f"{reference.repository} no longer has {file or 'a file'} that it lists", hint=f"see {page}/tree/main"
            )
        if said == "Access to this resource is disabled.":
            return DownloadError(f"the hub has disabled {reference.repository}", hint=f"see {page}")
        if error.status in (401, 403, 404):
            return self._not_found(error, reference, said)
        return DownloadError(f"the hub refuses {reference}: {said or error}", hint=f"see {page}")

    def _unreachable(self, error: UnreachableError) -> DownloadError:
        if error.status == 429:
            return DownloadError(
                "the hub asks for fewer requests (HTTP 429)",
                hint="wait some minutes and run the same command again; a token (HF_TOKEN) has a higher limit",
            )
        return DownloadError(
            f"cannot reach the hub {self.settings.endpoint}: {error}",
            hint="check the network; HF_ENDPOINT=https://HOST names a mirror",
        )

    def _gated(self, reference: HubReference, page: str, said: str) -> DownloadError:
        if self.settings.token is None:
            return DownloadError(
                f"{reference.repository} is gated: its owner asks you to accept its terms first; no token was given",
                hint=f"accept at {page}; make a token at {self.settings.endpoint}/settings/tokens; then set HF_TOKEN, "
                f"or write it to {self.settings.token_file}",
            )
        why = f" ({said})" if said else ""
        return DownloadError(
            f"{reference.repository} is gated, and the account of the token from {self.settings.token_source} "
            f"has no access to it{why}",
            hint=f"accept its terms at {page} (some owners then decide by hand), and let the token read gated "
            "repositories",
        )

    def _not_found(self, error: WebError, reference: HubReference, said: str) -> HerdError:
        """The hub says the same of what does not exist and of what this person may not see."""
        if error.status == 401 and self.settings.token is not None and "credentials" in said.lower():
            return DownloadError(
                f"the hub refuses the token from {self.settings.token_source}: {said}",
                hint=f"make a new one at {self.settings.endpoint}/settings/tokens",
            )
        search = f"{self.settings.endpoint}/models?search={quote(reference.repository)}"
        with_token = "" if self.settings.token else "; a private one needs a token (HF_TOKEN)"
        return ModelNotFoundError(
            f"the hub has no repository {reference.repository}, or does not show it to you (HTTP {error.status})",
            hint=f"check the spelling: {search}{with_token}",
        )
