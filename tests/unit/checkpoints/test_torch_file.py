"""Archives of torch.save: every member's place is checked, nothing is unpacked, tensors come out as they went in."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from openherd.checkpoints.mapped_file import map_file
from openherd.checkpoints.torch_file import read_torch_file
from openherd.checkpoints.zip_members import read_members
from openherd.errors import FormatError, HerdError, UnsupportedError
from tests.bounds import within_cpu, within_memory
from tests.torch_files import Entry, archive, state_dict, torch_file

ONES = np.ones((2, 3), np.float32)
RAW = ONES.tobytes()
SOUND = archive(state_dict({"a": Entry((2, 3))}), {"0": RAW})


def write(tmp_path: Path, raw: bytes) -> Path:
    path = tmp_path / "a.pth"
    path.write_bytes(raw)
    return path


def test_tensors_come_out_as_they_went_in(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {"a.weight": rng.standard_normal((5, 7), np.float32), "b": rng.standard_normal((3,), np.float32)}
    tensors = read_torch_file(write(tmp_path, torch_file(arrays)))
    for name, array in arrays.items():
        np.testing.assert_array_equal(tensors[name].rows().view(np.float32).reshape(array.shape), array)


def test_two_tensors_may_share_a_storage(tmp_path: Path) -> None:
    entries = {"a": Entry((2, 2), length=6), "b": Entry((2,), offset=4, length=6)}
    tensors = read_torch_file(write(tmp_path, archive(state_dict(entries), {"0": np.arange(6, dtype="<f4").tobytes()})))
    assert tensors["a"].rows().view(np.float32).tolist() == [[0, 1], [2, 3]]
    assert tensors["b"].rows().view(np.float32).tolist() == [[4, 5]]


def test_ignored_names_may_have_any_type(tmp_path: Path) -> None:
    entries = {"a": Entry((2, 3)), "mask": Entry((6,), "1", storage="torch.BoolStorage")}
    path = write(tmp_path, archive(state_dict(entries), {"0": RAW, "1": bytes(6)}))
    assert read_torch_file(path, ignored=lambda name: name == "mask").keys() == {"a"}
    with pytest.raises(UnsupportedError, match="tensor 'mask' is a BoolStorage; openherd reads F32, F16 and BF16"):
        read_torch_file(path)


def _with(pickle: bytes | None = None, storages: dict[str, bytes] | None = None, **extra: bytes) -> bytes:
    pickle = state_dict({"a": Entry((2, 3))}) if pickle is None else pickle
    return archive(pickle, {"0": RAW} if storages is None else storages, **extra)


def _zip(*members: tuple[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as file:
        for name, raw in members:
            file.writestr(name, raw)
    return out.getvalue()


def _patched(find: bytes, offset: int, value: bytes) -> bytes:
    """The sound file with `value` at `offset` from the first place of `find`."""
    at = SOUND.index(find) + offset
    return SOUND[:at] + value + SOUND[at + len(value) :]


CENTRAL, END = b"PK\x01\x02", b"PK\x05\x06"
OLD = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."
REFUSED: dict[str, tuple[Callable[[], bytes], type[HerdError], str]] = {
    "not an archive": (lambda: b"abc" * 100, FormatError, "does not begin as a zip archive"),
    "a pickle": (lambda: state_dict({}), FormatError, "does not begin as a zip archive"),
    "torch before 1.6": (lambda: OLD, UnsupportedError, "torch's format before version 1.6"),
    "no data.pkl": (lambda: _zip(("a/b", b"")), FormatError, "0 times FOLDER/data.pkl"),
    "two of them": (lambda: _zip(("a/data.pkl", b"."), ("b/data.pkl", b".")), FormatError, "2 times FOLDER/data.pkl"),
    "data.pkl without folder": (lambda: _zip(("data.pkl", b".")), FormatError, "0 times FOLDER"),
    "TorchScript": (lambda: _with(**{"constants.pkl": b"."}), UnsupportedError, "TorchScript"),
    "big-endian": (lambda: _with(byteorder=b"big"), UnsupportedError, "another byte order"),
    "no storage": (lambda: _with(storages={}), FormatError, "lies in data/0, which the archive does not have"),
    "storage too short": (lambda: _with(storages={"0": RAW[:-4]}), FormatError, "6 numbers of FloatStorage are not 20"),
    "storage too long": (lambda: _with(storages={"0": RAW + b"x"}), FormatError, "are not 25 bytes"),
    "key leads elsewhere": (
        lambda: _with(state_dict({"a": Entry((2, 3), "../data.pkl")})), FormatError, "lies in data/../data.pkl, which"),
    "float64": (
        lambda: _with(state_dict({"a": Entry((3,), storage="torch.DoubleStorage")})), UnsupportedError, "is a DoubleS"),
    "empty tensor": (
        lambda: _with(state_dict({"a": Entry((0, 3), length=6)})), UnsupportedError, r"'a' is empty \(shape \(0, 3\)"),
    "pickle changed": (lambda: SOUND.replace(b"torch._utils", b"torch._utilS"), FormatError, "match its checksum"),
    "compressed": (lambda: _zip(("a/data.pkl", bytes(9999)), method=zipfile.ZIP_DEFLATED), UnsupportedError, "is com"),
    "a bomb": (lambda: _zip(("a/data.pkl", bytes(9 << 20)), method=zipfile.ZIP_DEFLATED), UnsupportedError, "is com"),
    "bytes follow": (lambda: SOUND + b"x", FormatError, "bytes follow its end"),
    "cut": (lambda: SOUND[:-5], FormatError, "its end is missing"),
    "cut in the directory": (lambda: SOUND[: SOUND.index(CENTRAL) + 9], FormatError, "its end is missing"),
    "encrypted": (lambda: _patched(CENTRAL, 8, b"\x01\x00"), UnsupportedError, "is encrypted or in another volume"),
    "size lies": (lambda: _patched(CENTRAL, 24, b"\xff\xff\xff\x7f"), UnsupportedError, "is compressed"),
    "both sizes lie": (lambda: _patched(CENTRAL, 20, b"\xff\xff\xff\x7f" * 2), FormatError, "goes past the end"),
    "offset lies": (lambda: _patched(CENTRAL, 42, b"\xff\xff\xff\x7f"), FormatError, "has no header at byte"),
    "zip64 without field": (lambda: _patched(CENTRAL, 42, b"\xff" * 4), FormatError, "zip64 sizes of a member are mis"),
    "local name differs": (lambda: _patched(b"archive/data.pkl", 0, b"A"), FormatError, "and directory disagree"),
    "name not UTF-8": (lambda: _patched(CENTRAL, 46, b"\xff"), FormatError, "name of a member is not UTF-8"),
    "name beyond": (lambda: _patched(CENTRAL, 28, b"\xff\xff"), FormatError, "directory is cut short"),
    "count lies": (lambda: _patched(END, 8, b"\x07\x00\x07\x00"), FormatError, "7 members in 246 bytes"),
    "volumes": (lambda: _patched(END, 4, b"\x01\x00"), FormatError, "one of several volumes"),
    "directory lies": (lambda: _patched(END, 16, b"\xf0\xff\xff\x7f"), FormatError, "does not fit the file"),
    "zip64 end": (lambda: _patched(END, 16, b"\xff" * 4), FormatError, "zip64 locator is missing"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str, tmp_path: Path) -> None:
    make, error, message = REFUSED[case]
    path = write(tmp_path, make())

    def refuse() -> None:
        with pytest.raises(error, match=message):
            read_torch_file(path)

    within_cpu(1, refuse)
    within_memory(2 * path.stat().st_size + (64 << 20), refuse)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_twice(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"'a/data\.pkl' stands twice"):
        read_torch_file(write(tmp_path, _zip(("a/data.pkl", b"."), ("a/data.pkl", b"x"))))


def test_members_that_overlap(tmp_path: Path) -> None:
    """A member whose bytes hold another member's header and bytes, as in bombs of overlapping members."""
    inner = _zip(("a/x", b"12345678"))
    raw = _zip(("a/big", inner))
    end = raw.rindex(END)
    central = raw.rindex(CENTRAL)
    extra = inner[inner.index(CENTRAL) : inner.index(END)]
    start = struct.pack("<L", raw.index(b"PK\x03\x04", 4))
    extra = extra[:42] + start + extra[46:]
    size = end - central + len(extra)
    tail = raw[end : end + 8] + struct.pack("<HHLL", 2, 2, size, central) + b"\0\0"
    with pytest.raises(FormatError, match="overlaps another"):
        read_torch_file(write(tmp_path, raw[:end] + extra + tail))


def test_archives_beyond_four_gigabytes(tmp_path: Path) -> None:
    """zip64: a storage of 4.5 GB, sparse on disk, between others; only headers are read."""
    path, n = tmp_path / "big.pth", (9 << 29) // 4
    pickle = state_dict({"big": Entry((3, n // 3), "0", length=n), "last": Entry((2, 3), "1")})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as file:
        file.writestr("archive/data.pkl", pickle)
    with open(path, "r+b") as raw:
        _sparse_member(raw, path, b"archive/data/0", 4 * n, b"archive/data/1", RAW)
    members = read_members(path, map_file(path))
    assert members["archive/data/0"].nbytes == 4 * n
    tensors = read_torch_file(path)
    assert tensors["big"].shape == (3, n // 3)
    np.testing.assert_array_equal(tensors["last"].rows().view(np.float32), ONES)


def _sparse_member(raw: io.BufferedRandom, path: Path, big: bytes, size: int, last: bytes, data: bytes) -> None:
    """Append a member of zeros without writing them, then a small one, and a zip64 directory over all three."""
    whole = path.read_bytes()
    start = whole.index(CENTRAL)
    first = whole[start : whole.rindex(END)]
    raw.seek(start)
    full = b"\xff" * 4
    sizes = struct.pack("<HHQQ", 1, 16, size, size)
    raw.write(b"PK\x03\x04" + struct.pack("<5HL", 45, 0, 0, 0, 33, 0) + full * 2
              + struct.pack("<HH", len(big), len(sizes)) + big + sizes)  # fmt: skip
    raw.truncate(raw.tell() + size)
    raw.seek(0, 2)
    at = raw.tell()
    raw.write(
        b"PK\x03\x04" + struct.pack("<5HLLLHH", 20, 0, 0, 0, 33, 0, len(data), len(data), len(last), 0) + last + data
    )
    directory = raw.tell()
    places = struct.pack("<HHQQ", 1, 16, size, size)
    raw.write(first)
    raw.write(CENTRAL + struct.pack("<6HL", 45, 45, 0, 0, 0, 33, 0) + full * 2
              + struct.pack("<5HLL", len(big), len(places), 0, 0, 0, 0, start) + big + places)  # fmt: skip
    far = struct.pack("<HHQ", 1, 8, at)
    raw.write(CENTRAL + struct.pack("<6HL", 45, 45, 0, 0, 0, 33, 0) + struct.pack("<LL", len(data), len(data))
              + struct.pack("<5HL", len(last), len(far), 0, 0, 0, 0) + full + last + far)  # fmt: skip
    end = raw.tell()
    raw.write(b"PK\x06\x06" + struct.pack("<Q2H2L4Q", 44, 45, 45, 0, 0, 3, 3, end - directory, directory))
    raw.write(b"PK\x06\x07" + struct.pack("<LQL", 0, end, 1))
    raw.write(END + struct.pack("<4HLLH", 0, 0, 3, 3, end - directory, 0xFFFFFFFF, 0))
