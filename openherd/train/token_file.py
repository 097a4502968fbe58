"""Token files: what `prepare` writes and training reads, mapped into memory.

A folder with
    tokens.bin     int32, little-endian: the ids of all documents, one after another
    mask.bin       uint8: 1 where the token is learnt
    documents.bin  int64: where each document begins, and the end of the last
    manifest.json  what it was made of: a sha256 for every source and every file, the tokenizer and the template
In a folder of preferences documents 2i and 2i + 1 are the chosen and the rejected end of pair i.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, Self

import numpy as np
from numpy.typing import NDArray

from openherd.checkpoints.free_place import require_free
from openherd.checkpoints.new_file import explained, sync_folder, write_new_text
from openherd.errors import FormatError, InputError
from openherd.store.digest import sha256_of
from openherd.train.encoding import Encoded

Kind = Literal["documents", "preferences"]
VERSION = 1
MANIFEST = "manifest.json"
TOKENS, MASK, DOCUMENTS = "tokens.bin", "mask.bin", "documents.bin"
_MAX_MANIFEST = 64 << 20


@dataclass(slots=True)
class Source:
    """One data file in a folder of tokens: documents [first, first + documents)."""

    path: str
    sha256: str
    weight: float = 1.0
    first: int = 0
    rows: int = 0
    documents: int = 0
    tokens: int = 0
    learnt: int = 0


@dataclass(frozen=True, slots=True)
class Manifest:
    kind: Kind
    vocab_size: int
    tokenizer_sha256: str
    template_sha256: str | None
    sources: tuple[Source, ...]
    files: Mapping[str, str]  # sha256 of each file beside the manifest
    tokens: int
    documents: int
    learnt: int
    version: int = VERSION


class TokenWriter:
    """Writes a folder of tokens under a temporary name; `close` makes it appear whole, an exception leaves nothing."""

    def __init__(self, folder: Path, kind: Kind, *, vocab_size: int, tokenizer: str, template: str | None) -> None:
        """Raises InputError when `folder` exists: prepared data is never overwritten."""
        require_free(folder)
        self._folder = folder
        self._partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
        self._kind, self._vocab_size, self._tokenizer, self._template = kind, vocab_size, tokenizer, template
        self._sources: list[Source] = []
        self._ends = [0]
        self._files: dict[str, BinaryIO] = {}
        self._digests = {name: hashlib.sha256() for name in (TOKENS, MASK, DOCUMENTS)}

    def __enter__(self) -> Self:
        try:
            self._partial.mkdir(parents=True)
        except OSError as why:
            raise InputError(f"cannot write to {self._folder.parent}: {why.strerror}") from None
        self._files = {name: (self._partial / name).open("wb") for name in (TOKENS, MASK, DOCUMENTS)}
        return self

    def begin(self, source: Source) -> None:
        source.first = self.num_documents
        self._sources.append(source)

    def add(self, documents: list[Encoded]) -> None:
        """The documents of one row of the present source."""
        source = self._sources[-1]
        source.rows += 1
        for document in documents:
            self._write(TOKENS, document.ids.astype("<i4").tobytes())
            self._write(MASK, document.mask.tobytes())
            self._ends.append(self._ends[-1] + len(document.ids))
            source.documents += 1
            source.tokens += len(document.ids)
            source.learnt += document.num_learnt

    @property
    def num_documents(self) -> int:
        return len(self._ends) - 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._finish()
        finally:
            for file in self._files.values():
                with suppress(OSError):  # all that counts was written and synced; else there is an error already
                    file.close()
            shutil.rmtree(self._partial, ignore_errors=True)

    def _write(self, name: str, data: bytes) -> None:
        with explained(self._folder):
            self._files[name].write(data)
        self._digests[name].update(data)

    def _finish(self) -> None:
        self._write(DOCUMENTS, np.asarray(self._ends, "<i8").tobytes())
        with explained(self._folder):
            for file in self._files.values():
                file.flush()
                os.fsync(file.fileno())
        manifest = Manifest(
            self._kind,
            self._vocab_size,
            self._tokenizer,
            self._template,
            tuple(self._sources),
            {name: digest.hexdigest() for name, digest in self._digests.items()},
            tokens=self._ends[-1],
            documents=self.num_documents,
            learnt=sum(source.learnt for source in self._sources),
        )
        write_new_text(self._partial / MANIFEST, json.dumps(asdict(manifest), indent=1))
        self._partial.rename(self._folder)
        sync_folder(self._folder.parent)


@dataclass(frozen=True, slots=True)
class TokenFolder:
    """A folder of tokens, mapped; documents are views."""

    path: Path
    manifest: Manifest
    tokens: NDArray[np.int32] = field(repr=False)
    mask: NDArray[np.uint8] = field(repr=False)
    ends: NDArray[np.int64] = field(repr=False)

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, index: int) -> Encoded:
        if not 0 <= index < len(self):
            raise IndexError(index)
        span = slice(int(self.ends[index]), int(self.ends[index + 1]))
        return Encoded(self.tokens[span], self.mask[span])

    @property
    def fingerprint(self) -> str:
        """Equal for folders that hold the same tokens, masks and documents from sources of the same weights."""
        facts = {
            "kind": self.manifest.kind,
            "files": dict(sorted(self.manifest.files.items())),
            "sources": [(source.first, source.documents, source.weight) for source in self.manifest.sources],
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def open_tokens(folder: Path, *, verify: bool = False) -> TokenFolder:
    """Map a folder that `prepare` wrote; `verify` reads it whole and compares every sha256.

    Raises InputError when it is not there, FormatError when its parts do not fit together.
    """
    manifest = _read_manifest(folder)
    tokens, mask, ends = (
        _map(folder / name, dtype) for name, dtype in ((TOKENS, "<i4"), (MASK, "u1"), (DOCUMENTS, "<i8"))
    )
    if not (
        len(tokens) == len(mask) == manifest.tokens
        and len(ends) == manifest.documents + 1
        and ends[0] == 0
        and ends[-1] == len(tokens)
        and bool((np.diff(ends) > 0).all())
    ):
        raise FormatError(f"{folder}: its files do not fit its manifest", hint="prepare the data again")
    if verify:
        for name, digest in manifest.files.items():
            if sha256_of(folder / name) != digest:
                raise FormatError(f"{folder / name} has changed since it was prepared", hint="prepare the data again")
    if len(tokens) and not 0 <= int(tokens.min()) <= int(tokens.max()) < manifest.vocab_size:
        raise FormatError(f"{folder}: a token id is outside the vocabulary of {manifest.vocab_size}")
    return TokenFolder(folder, manifest, tokens, mask, ends)


def _map(file: Path, dtype: str) -> Any:
    try:
        size = file.stat().st_size
        if size % np.dtype(dtype).itemsize:
            raise FormatError(f"{file} has {size} bytes, which is no whole number of entries")
        return np.memmap(file, dtype, "r") if size else np.empty(0, dtype)
    except OSError as why:
        raise InputError(f"cannot read {file}: {why.strerror}") from None


def _read_manifest(folder: Path) -> Manifest:
    file = folder / MANIFEST
    try:
        with file.open("rb") as opened:
            data = opened.read(_MAX_MANIFEST + 1)
    except OSError as why:
        raise InputError(
            f"{folder} holds no prepared data ({why.strerror}: {MANIFEST})", hint="make it with: herd train prepare"
        ) from None
    try:
        if len(data) > _MAX_MANIFEST:
            raise ValueError("it is too long")
        values = json.loads(data)
        if values["version"] != VERSION:
            raise ValueError(f"it has version {values['version']!r}; this is {VERSION}")
        manifest = Manifest(**values | {"sources": tuple(Source(**source) for source in values["sources"])})
        _check(manifest)
    except (ValueError, TypeError, KeyError, RecursionError) as why:
        raise FormatError(f"{file} is no manifest of prepared data: {str(why)[:200]}") from None
    return manifest


def _check(manifest: Manifest) -> None:
    """Types and sums; raises ValueError. What the files hold is checked against it by `open_tokens`."""
    if manifest.kind not in ("documents", "preferences") or set(manifest.files) != {TOKENS, MASK, DOCUMENTS}:
        raise ValueError("kind or files are not as prepare writes them")
    counts = [manifest.tokens, manifest.documents, manifest.learnt, manifest.vocab_size]
    counts += [n for s in manifest.sources for n in (s.first, s.rows, s.documents, s.tokens, s.learnt)]
    if not all(type(count) is int and 0 <= count < 1 << 62 for count in counts):
        raise ValueError("a count is not a whole number of at least 0")
    first = 0
    for source in manifest.sources:
        if source.first != first:
            raise ValueError("the sources do not follow each other")
        first += source.documents
        if type(source.weight) not in (int, float) or not 0 < source.weight < float("inf"):
            raise ValueError("a weight is not a number greater than 0")
    if first != manifest.documents:
        raise ValueError("the sources do not add up to the documents")
