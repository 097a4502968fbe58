"""What a person writes for a model of a hub: `hf:ORG/REPO[:FILE or quantisation][@REVISION]`, or a page's address."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from openherd.errors import InputError, UnsupportedError

DEFAULT_ENDPOINT = "https://huggingface.co"
MAX_LENGTH = 1024
SPELLING = "hf:ORG/REPO[:FILE or quantisation][@REVISION]"

# Patterns are compiled when they are used: this module is part of every start.
_SCHEME = r"(?i:hf:)(//)?"
_HOSTS = {"huggingface.co", "www.huggingface.co", "hf.co"}
# The hub's own rule for names, without the lone names of its first year (`gpt2`), which could be anything here.
_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?"
_REPOSITORY = rf"{_PART}/{_PART}"
_REVISION = r"[A-Za-z0-9][A-Za-z0-9._/+-]{0,199}"
_COMMIT = r"[0-9a-f]{40}"


@dataclass(frozen=True, slots=True)
class HubReference:
    """`select` is a file of the repository, a quantisation (`Q4_K_M`), `safetensors`, or None: the only model there."""

    repository: str
    select: str | None = None
    revision: str | None = None

    def __str__(self) -> str:
        select = f":{self.select}" if self.select else ""
        revision = f"@{self.revision}" if self.revision else ""
        return f"hf:{self.repository}{select}{revision}"


def is_hub_reference(text: str) -> bool:
    return text[:3].lower() == "hf:" or _as_address(text) is not None


def is_repository_name(name: str) -> bool:
    """Whether `name` is ORG/REPO by the hub's rules, and so can stand in an address and in a folder's name."""
    return re.fullmatch(_REPOSITORY, name) is not None and ".." not in name and "--" not in name and len(name) <= 96


def is_commit(revision: str | None) -> bool:
    """Whether `revision` names one state of a repository for good, unlike a branch or a tag."""
    return revision is not None and re.fullmatch(_COMMIT, revision) is not None


def parse_hub_reference(text: str) -> HubReference:
    """Raises InputError for what is not one, UnsupportedError for data sets and spaces."""
    if len(text) > MAX_LENGTH:
        raise InputError(f"a model reference of {len(text)} characters is more than {MAX_LENGTH}", hint=_try())
    path = _as_address(text)
    if path is not None:
        return _from_page(text, path)
    rest = text[len(match.group()) :] if (match := re.match(_SCHEME, text)) else text
    repository = re.match(_REPOSITORY, rest)
    if repository is None:
        raise _wrong(text, "no ORG/REPO follows hf:")
    select, revision = _select_and_revision(text, rest[repository.end() :])
    return _checked(text, repository.group(), select, revision)


def _select_and_revision(text: str, rest: str) -> tuple[str | None, str | None]:
    """`:SELECT@REVISION`, `@REVISION:SELECT`, either alone, or nothing."""
    if not rest:
        return None, None
    mark, rest = rest[0], rest[1:]
    if mark == ":":
        select, at, revision = rest.rpartition("@") if "@" in rest else (rest, "", "")
        if not select or (at and not revision):
            raise _wrong(text, "nothing follows ':' or '@'")
        return select, revision or None
    if mark == "@":
        revision, colon, select = rest.partition(":")
        if not revision or (colon and not select):
            raise _wrong(text, "nothing follows '@' or ':'")
        return select or None, revision
    raise _wrong(text, f"{mark!r} cannot follow ORG/REPO")


def _as_address(text: str) -> str | None:
    """The path of an address of the hub, or of the mirror that HF_ENDPOINT names; None for anything else."""
    if "/" not in text:
        return None
    from urllib.parse import urlsplit

    with_scheme = text if "://" in text else f"https://{text}"
    try:
        parts = urlsplit(with_scheme)
        mirror = urlsplit(os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT)
        hosts = {*_HOSTS, mirror.netloc.lower()} if "://" in text else _HOSTS
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or parts.netloc.lower() not in hosts:
        return None
    return parts.path


def _from_page(text: str, path: str) -> HubReference:
    """`/ORG/REPO`, `/ORG/REPO/tree/REVISION`, `/ORG/REPO/{blob,resolve}/REVISION/FILE`, as a browser shows them."""
    from urllib.parse import unquote

    parts = [unquote(part) for part in path.split("/") if part]
    if parts and parts[0] in ("datasets", "spaces"):
        raise UnsupportedError(f"{text} is not a model", hint=_try())
    repository, view = "/".join(parts[:2]), parts[2:]
    if not re.fullmatch(_REPOSITORY, repository):
        raise _wrong(text, "no ORG/REPO follows the host")
    match view:
        case [] | ["tree" | "blob" | "resolve"]:
            return _checked(text, repository, None, None)
        case ["tree", revision]:
            return _checked(text, repository, None, revision)
        case ["blob" | "resolve" | "raw", revision, *file] if file:
            return _checked(text, repository, "/".join(file), revision)
    raise _wrong(text, "it is no page of a model or of a file in it")


def _checked(text: str, repository: str, select: str | None, revision: str | None) -> HubReference:
    if not is_repository_name(repository):
        raise _wrong(text, f"{repository!r} is not the name of a repository")
    if revision is not None and (not re.fullmatch(_REVISION, revision) or ".." in revision):
        raise _wrong(text, f"{revision!r} is not the name of a revision")
    if select is not None and not select.isprintable():
        raise _wrong(text, "a file's name has characters that cannot be shown")
    return HubReference(repository, select, revision)


def _wrong(text: str, why: str) -> InputError:
    return InputError(f"{text!r} is not a model of the hub: {why}", hint=_try())


def _try() -> str:
    return f"a model of the hub is written {SPELLING}, such as hf:Qwen/Qwen3-0.6B-GGUF:Q8_0"
