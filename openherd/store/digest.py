"""What a file must be: its size, and the checksum that its source publishes."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_HEX = {"sha256": re.compile(r"[0-9a-f]{64}"), "git-sha1": re.compile(r"[0-9a-f]{40}")}
_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Pinned:
    """`kind` is "sha256", or "git-sha1": the name git gives a file's content, which a hub publishes for small files.

    git-sha1 finds every accident; against somebody who can make SHA-1 collide it says only as much as git does.
    """

    size: int
    digest: str
    kind: Literal["sha256", "git-sha1"] = "sha256"

    def __post_init__(self) -> None:
        if self.size < 0 or not _HEX[self.kind].fullmatch(self.digest):
            raise ValueError(f"not a size and a {self.kind}: {self.size}, {self.digest[:80]!r}")

    def matches(self, path: Path) -> bool:
        return path.stat().st_size == self.size and self._of(path) == self.digest

    def _of(self, path: Path) -> str:
        if self.kind == "sha256":
            return sha256_of(path)
        digest = hashlib.sha1(b"blob %d\0" % self.size, usedforsecurity=False)
        with path.open("rb") as file:
            while chunk := file.read(_READ_BYTES):
                digest.update(chunk)
        return digest.hexdigest()


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
