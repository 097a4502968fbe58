"""The members of a zip archive that stores them without compression, as torch.save writes its files.

Source: PKWARE's APPNOTE.TXT, sections 4.3.6 to 4.3.16 and 4.5.3 (zip64). Only the central directory is believed, and
only after the local headers agree with it: a member outside the file, over another, twice under one name, encrypted
or compressed is refused, so that no byte is ever unpacked and no archive grows when it is read. Not covered:
archives in several volumes, data before the archive. Checksums are those of `Member.check`, which reads the data.
"""

from __future__ import annotations

import mmap
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from openherd.errors import FormatError, UnsupportedError

_END = struct.Struct("<4s4H2LH")
_END64_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_MAX_COMMENT = 0xFFFF
# Well above what models need: one member for each tensor, and Llama 3.1 405B has 1,138.
MAX_MEMBERS = 1 << 16
MAX_DIRECTORY = 16 << 20  # bytes
_ENCRYPTED = 1
_ZIP64_EXTRA = 1
_FULL32, _FULL16 = 0xFFFFFFFF, 0xFFFF


@dataclass(frozen=True, slots=True)
class Member:
    """A stored member: where its bytes lie in the file."""

    name: str
    offset: int
    nbytes: int
    crc: int

    def check(self, path: Path, data: mmap.mmap) -> bytes:
        """The member's bytes. Raises FormatError when they do not match their checksum."""
        raw = data[self.offset : self.offset + self.nbytes]
        if zlib.crc32(raw) != self.crc:
            raise FormatError(f"{path}: the member {self.name[:80]!r} does not match its checksum")
        return raw


def read_members(path: Path, data: mmap.mmap) -> dict[str, Member]:
    """Members by name. Raises FormatError, or UnsupportedError for compression and encryption."""
    return _Archive(path, data).members()


def is_zip(data: mmap.mmap) -> bool:
    """Whether the file begins as archives do."""
    return data[:4] == b"PK\x03\x04"


class _Archive:
    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path = path
        self.data = data
        self.size = len(data)

    def members(self) -> dict[str, Member]:
        count, size, start = self._directory()
        if count > MAX_MEMBERS or size > MAX_DIRECTORY or size < count * _CENTRAL.size or start + size > self.size:
            self._fail(f"a directory of {count} members in {size} bytes at {start} does not fit the file or the limits")
        members: dict[str, Member] = {}
        for member in self._entries(start, start + size, count):
            if member.name in members:
                self._fail(f"the member {member.name[:80]!r} stands twice")
            members[member.name] = member
        pos = 0
        for member in sorted(members.values(), key=lambda m: m.offset):
            if member.offset < pos:
                self._fail(f"the member {member.name[:80]!r} overlaps another")
            pos = member.offset + member.nbytes
        if pos > start:
            self._fail("a member overlaps the directory")
        return members

    def _fail(self, what: str) -> NoReturn:
        raise FormatError(f"{self.path}: not a sound zip archive: {what}")

    def _directory(self) -> tuple[int, int, int]:
        """(members, bytes, start) of the central directory."""
        end = self.data.rfind(b"PK\x05\x06", max(0, self.size - _END.size - _MAX_COMMENT))
        if end < 0 or end + _END.size > self.size:
            self._fail("its end is missing (the file is cut short?)")
        _, disk, first_disk, here, count, size, start, comment = _END.unpack_from(self.data, end)
        if end + _END.size + comment != self.size:
            self._fail("bytes follow its end")
        if disk or first_disk or here != count:
            self._fail("it is one of several volumes")
        if count != _FULL16 and _FULL32 not in (size, start):
            return count, size, start
        return self._directory64(end)

    def _directory64(self, end: int) -> tuple[int, int, int]:
        at = end - _END64_LOCATOR.size
        if at < 0 or self.data[at : at + 4] != b"PK\x06\x07":
            self._fail("the zip64 locator is missing")
        _, _, start, _ = _END64_LOCATOR.unpack_from(self.data, at)
        if start + _END64.size > at or self.data[start : start + 4] != b"PK\x06\x06":
            self._fail("the zip64 end is missing")
        _, _, _, _, disk, first_disk, here, count, size, directory = _END64.unpack_from(self.data, start)
        if disk or first_disk or here != count:
            self._fail("it is one of several volumes")
        return count, size, directory

    def _entries(self, pos: int, end: int, count: int) -> Iterator[Member]:
        for _ in range(count):
            if pos + _CENTRAL.size > end or self.data[pos : pos + 4] != b"PK\x01\x02":
                self._fail(f"its directory is broken at byte {pos}")
            fields = _CENTRAL.unpack_from(self.data, pos)
            flags, method, crc, packed, size = fields[3], fields[4], *fields[7:10]
            name_len, extra_len, comment_len, disk, start = *fields[10:14], fields[16]
            body = pos + _CENTRAL.size
            pos = body + name_len + extra_len + comment_len
            if pos > end:
                self._fail("its directory is cut short")
            name = self._name(self.data[body : body + name_len])
            extra = self.data[body + name_len : body + name_len + extra_len]
            size, packed, start = self._zip64(extra, size, packed, start)
            if disk or flags & _ENCRYPTED:
                raise UnsupportedError(f"{self.path}: the member {name[:80]!r} is encrypted or in another volume")
            if method != 0 or packed != size:
                raise UnsupportedError(
                    f"{self.path}: the member {name[:80]!r} is compressed; openherd reads what torch.save writes"
                )
            offset = self._data_start(name, start)
            if offset + size > self.size:
                self._fail(f"the member {name[:80]!r} goes past the end of the file")
            yield Member(name, offset, size, crc)

    def _name(self, raw: bytes) -> str:
        try:
            name = raw.decode()
        except UnicodeDecodeError:
            self._fail("the name of a member is not UTF-8")
        if not name or "\0" in name:
            self._fail("a member has no name")
        return name

    def _zip64(self, extra: bytes, size: int, packed: int, start: int) -> tuple[int, int, int]:
        """Sizes and offset, with those that 32 bits cannot hold taken from the zip64 field."""
        wanted = [value == _FULL32 for value in (size, packed, start)]
        if not any(wanted):
            return size, packed, start
        pos = 0
        while pos + 4 <= len(extra):
            kind, length = struct.unpack_from("<2H", extra, pos)
            field = extra[pos + 4 : pos + 4 + length]
            if kind == _ZIP64_EXTRA and len(field) >= 8 * sum(wanted):
                found = iter(struct.unpack_from(f"<{sum(wanted)}Q", field))
                olds = zip(wanted, (size, packed, start), strict=True)
                size, packed, start = (next(found) if want else old for want, old in olds)
                return size, packed, start
            pos += 4 + length
        self._fail("the zip64 sizes of a member are missing")

    def _data_start(self, name: str, start: int) -> int:
        """Where a member's bytes begin: after its local header, which must tell of the same member."""
        if start + _LOCAL.size > self.size or self.data[start : start + 4] != b"PK\x03\x04":
            self._fail(f"the member {name[:80]!r} has no header at byte {start}")
        fields = _LOCAL.unpack_from(self.data, start)
        name_len, extra_len = fields[9], fields[10]
        body = start + _LOCAL.size
        if fields[3] != 0 or self.data[body : body + name_len] != name.encode():
            self._fail(f"header and directory disagree about the member {name[:80]!r}")
        return int(body + name_len + extra_len)
