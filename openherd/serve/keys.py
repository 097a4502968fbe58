"""API keys: made once, kept as hashes, compared in constant time.

A file of keys has a line for each, `NAME SHA256 [requests=N] [tokens=N] [admin]`: the limits are for a minute, and an
admin's key may load and unload models. The environment variable OPENHERD_API_KEYS has keys themselves, separated by
commas, for containers. Keys are random (256 bits), so a plain hash cannot be turned back by guessing.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from openherd.errors import InputError

VARIABLE = "OPENHERD_API_KEYS"
PREFIX = "herd-"
MAX_FILE_BYTES = 2**20
MIN_KEY_CHARACTERS = 16
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LIMITS = ("requests", "tokens")


@dataclass(frozen=True, slots=True)
class Key:
    """One client. `name` is for people; `digest` is of the key itself."""

    name: str
    digest: bytes
    requests: int | None = None  # a minute
    tokens: int | None = None  # a minute, prompt and answer together
    is_admin: bool = False

    @property
    def salt(self) -> bytes:
        """Requests of different keys never share cached blocks, so that no timing tells one about another."""
        return self.digest


class KeyRing:
    """The keys of one server. Empty: everybody may come."""

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        self._keys = tuple(keys)

    def __bool__(self) -> bool:
        return bool(self._keys)

    def find(self, presented: str) -> Key | None:
        """Whose key that is. Takes the same time for every key, right or wrong."""
        digest = digest_of(presented)
        found = None
        for key in self._keys:
            if hmac.compare_digest(key.digest, digest):
                found = key
        return found


def digest_of(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def load_keys(file: str | None, environment: Mapping[str, str] = os.environ) -> KeyRing:
    """Keys of a file and of the environment. Raises `InputError` that names the line."""
    keys = [] if file is None else _from_file(Path(file))
    plain = [key for part in environment.get(VARIABLE, "").split(",") if (key := part.strip())]
    if any(len(key) < MIN_KEY_CHARACTERS for key in plain):
        raise InputError(f"a key in {VARIABLE} has fewer than {MIN_KEY_CHARACTERS} characters")
    if not all(key.isascii() and key.isprintable() for key in plain):
        raise InputError(f"a key in {VARIABLE} has characters that no header carries: use printable ASCII")
    keys += [Key(f"environment-{number}", digest_of(key)) for number, key in enumerate(plain, 1)]
    names = [key.name for key in keys]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"two keys are called {twice!r}")
    return KeyRing(keys)


def add_key(file: str, name: str) -> str:
    """Make a key, append its hash to the file (its owner's alone), and return the key, which is kept nowhere."""
    if not _NAME.fullmatch(name):
        raise InputError(f"a key's name has letters, digits, dots, dashes and underscores, not {name!r}")
    path = Path(file)
    if path.exists() and any(key.name == name for key in _from_file(path, may_be_empty=True)):
        raise InputError(f"{file} has a key called {name!r} already")
    key = PREFIX + secrets.token_urlsafe(32)
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "w", encoding="utf-8") as lines:
            lines.write(f"{_end_of_line(path)}{name} {digest_of(key).hex()}\n")
    except OSError as error:
        raise InputError(f"cannot write the keys {file}: {error.strerror}") from None
    return key


def _end_of_line(path: Path) -> str:
    """What a file that was written by hand may lack at its end."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        return "" if file.read(1) in (b"", b"\n") else "\n"


def _from_file(path: Path, *, may_be_empty: bool = False) -> list[Key]:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise InputError(
            f"cannot read the keys {path}: {error.strerror}", hint=f"try: herd serve --keys {path} --add-key NAME"
        ) from None
    if len(data) > MAX_FILE_BYTES:
        raise InputError(f"the keys {path} are longer than {MAX_FILE_BYTES} bytes")
    lines = data.decode("utf-8", "replace").splitlines()
    keys = [
        _from_line(line.split(), f"{path}, line {number}")
        for number, line in enumerate(lines, 1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    if not keys and not may_be_empty:
        raise InputError(f"{path} has no key", hint=f"try: herd serve --keys {path} --add-key NAME")
    return keys


def _from_line(words: list[str], where: str) -> Key:
    form = "a line of keys is NAME SHA256 [requests=N] [tokens=N] [admin]"
    if len(words) < 2 or not _NAME.fullmatch(words[0]) or not re.fullmatch(r"[0-9a-f]{64}", words[1]):
        raise InputError(f"{where}: {form}")
    limits: dict[str, int] = {}
    rest = words[2:]
    if is_admin := "admin" in rest:
        rest.remove("admin")
    for word in rest:
        name, _, value = word.partition("=")
        if name not in _LIMITS or name in limits or not re.fullmatch(r"[1-9][0-9]{0,11}", value):
            raise InputError(f"{where}: {form}")
        limits[name] = int(value)
    return Key(words[0], bytes.fromhex(words[1]), is_admin=is_admin, **limits)
