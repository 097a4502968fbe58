"""A hub's answer about one repository, checked before anything in it is believed.

Source: the hub's public API, `GET /api/models/ORG/REPO/revision/REVISION?blobs=true`. Names of files are a stranger's:
they are kept as the hub spells them, for addresses alone; `hub_files` decides which may become names on this machine.
Not covered: model cards beyond the licence, the hub's own opinion of the files' safety.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from openherd.errors import FormatError
from openherd.store.digest import Pinned

MAX_ANSWER_BYTES = 8 << 20  # of some 300 for each file; JSON takes up to 25 times its bytes in memory
MAX_FILES = 100_000
MAX_PATH_CHARACTERS = 1024
MAX_FILE_BYTES = 1 << 42
_MAX_TEXT = 200

_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file of a repository. `pinned` is None where the hub says no size or no checksum."""

    path: str
    pinned: Pinned | None

    @property
    def size(self) -> int:
        return self.pinned.size if self.pinned else 0


@dataclass(frozen=True, slots=True)
class Repository:
    """One revision of a repository. `licence` is the hub's word for it, or "" when it says none."""

    name: str
    commit: str
    licence: str
    licence_link: str
    gated: bool
    files: tuple[RemoteFile, ...]


def read_repository(body: bytes, asked: str) -> Repository:
    """The repository that `body` describes; `asked` is the name it was asked by. Raises FormatError."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"the hub's answer about {asked} is not JSON: {str(error)[:_MAX_TEXT]}") from None
    if not isinstance(answer, dict):
        raise _wrong(asked, "is not a JSON object")
    name, commit, siblings = answer.get("id"), answer.get("sha"), answer.get("siblings")
    if not isinstance(name, str) or len(name) > _MAX_TEXT or name.casefold().count("/") != 1:
        raise _wrong(asked, "names no repository")
    if not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
        raise _wrong(asked, "names no commit")
    if not isinstance(siblings, list) or len(siblings) > MAX_FILES:
        raise _wrong(asked, f"lists no files, or more than {MAX_FILES}")
    licence, link = _licence(answer)
    gated = answer.get("gated") not in (None, False)
    return Repository(printable(name), commit, licence, link, gated, tuple(_files(asked, siblings)))


def printable(text: str) -> str:
    """A stranger's text as it may be shown: one line, no control characters, not endless."""
    return "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text[:_MAX_TEXT]
    )


def _files(asked: str, siblings: list[Any]) -> list[RemoteFile]:
    files: dict[str, RemoteFile] = {}
    for sibling in siblings:
        path = sibling.get("rfilename") if isinstance(sibling, dict) else None
        if not isinstance(path, str) or not 0 < len(path) <= MAX_PATH_CHARACTERS:
            raise _wrong(asked, "lists a file without a usable name")
        if any("\ud800" <= character <= "\udfff" for character in path):
            raise _wrong(asked, "lists a file whose name holds half of a character")
        if path in files:
            raise _wrong(asked, f"lists {printable(path)} twice")
        files[path] = RemoteFile(path, _pinned(sibling))
    return list(files.values())


def _pinned(sibling: Mapping[str, Any]) -> Pinned | None:
    """A large file's SHA-256, a small one's name in git; the size must be a plain number within reason."""
    lfs, size = sibling.get("lfs"), sibling.get("size")
    if isinstance(lfs, dict):
        digest, size = lfs.get("sha256", lfs.get("oid")), lfs.get("size", size)
    else:
        digest = sibling.get("blobId")
    if type(size) is not int or not 0 <= size <= MAX_FILE_BYTES or not isinstance(digest, str):
        return None
    try:
        return Pinned(size, digest, "sha256" if isinstance(lfs, dict) else "git-sha1")
    except ValueError:
        return None


def _licence(answer: Mapping[str, Any]) -> tuple[str, str]:
    """The card's licence and where its text is; a licence called "other" has its real name beside it."""
    card = answer.get("cardData")
    card = card if isinstance(card, dict) else {}
    licence, name, link = (_text(card.get(key)) for key in ("license", "license_name", "license_link"))
    if not licence:
        tags = answer.get("tags")
        tags = [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []
        licence = next((_text(tag.removeprefix("license:")) for tag in tags if tag.startswith("license:")), "")
    return (name if licence in ("", "other") and name else licence), link


def _text(value: object) -> str:
    several = value[:5] if isinstance(value, list) else [value]  # some cards have several licences
    return ", ".join(printable(text) for text in several if isinstance(text, str) and text)[:_MAX_TEXT]


def _wrong(asked: str, what: str) -> FormatError:
    return FormatError(
        f"the hub's answer about {asked} {what}", hint="check HF_ENDPOINT, or the proxy on the way; then try again"
    )
