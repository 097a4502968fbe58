"""Headers, sound and hostile. Every refusal is quick, names the file, and takes little memory."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter

from openherd.checkpoints.gguf_header import MAX_TENSORS, read_header
from openherd.checkpoints.string_array import StringArray
from openherd.errors import FormatError, HerdError, ModelNotFoundError, UnsupportedError
from tests.bounds import within_cpu, within_memory
from tests.checkpoint_files import Entry, GGUFFile, array, entry, texts, tiny_llama, u32
from tests.unit.checkpoints.malformed_gguf import MALFORMED


def write(tmp_path: Path, file: GGUFFile | bytes) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes(file if isinstance(file, bytes) else file.build())
    return path


def refusal(path: Path) -> HerdError:
    """The error of reading `path`; asserts the limits of time and memory on the way."""

    def refuse() -> HerdError:
        with pytest.raises(HerdError) as caught:
            read_header(path)
        return caught.value

    within_cpu(1, refuse)
    error = within_memory(2 * path.stat().st_size + (64 << 20), refuse)
    assert str(path) in str(error)
    assert len(str(error)) < 1000
    return error


# Sound files


def test_reads_what_the_gguf_package_writes(tmp_path: Path) -> None:
    path = tmp_path / "written.gguf"
    writer = GGUFWriter(path, "llama")
    writer.add_uint8("a.u8", 200)
    writer.add_int8("a.i8", -3)
    writer.add_uint16("a.u16", 60000)
    writer.add_int16("a.i16", -30000)
    writer.add_uint32("a.u32", 4_000_000_000)
    writer.add_int32("a.i32", -2_000_000_000)
    writer.add_uint64("a.u64", 2**63 + 1)
    writer.add_int64("a.i64", -(2**62))
    writer.add_float32("a.f32", 0.5)
    writer.add_float64("a.f64", 1e300)
    writer.add_bool("a.bool", True)
    writer.add_string("a.text", "größe ☃")
    writer.add_array("a.texts", ["", "ab", "☃"])
    writer.add_array("a.numbers", [1, -2, 3])
    writer.add_array("a.bools", [True, False])
    writer.add_tensor("x", np.arange(6, dtype=np.float32).reshape(2, 3))
    writer.add_tensor("y", np.zeros((2, 34), np.uint8), raw_dtype=GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    header = read_header(path)
    assert header.version == 3
    for field in GGUFReader(path).fields.values():
        if field.name.startswith("a."):
            value = header.keys[field.name]
            value = list(value) if isinstance(value, np.ndarray | StringArray) else value
            assert value == field.contents(), field.name
    assert header.tensors["x"].shape == (2, 3)
    assert header.tensors["x"].rows(header.data).view("<f4").tolist() == [[0, 1, 2], [3, 4, 5]]
    assert (header.tensors["y"].type.name, header.tensors["y"].shape) == ("Q8_0", (2, 32))


@pytest.mark.parametrize("version", [2, 3])
def test_versions_read_alike(tmp_path: Path, version: int) -> None:
    file = tiny_llama()
    file.version = version
    header = read_header(write(tmp_path, file))
    assert header.version == version
    assert len(header.tensors) == len(file.tensors)


def test_alignment_places_the_data(tmp_path: Path) -> None:
    file = GGUFFile({"general.alignment": u32(256)}, [entry("x", np.ones((1, 5), np.float32))], alignment=256)
    header = read_header(write(tmp_path, file))
    assert header.tensors["x"].offset % 256 == 0
    assert header.tensors["x"].rows(header.data).view("<f4").tolist() == [[1] * 5]


def test_a_tensor_without_dimensions_is_one_value(tmp_path: Path) -> None:
    header = read_header(write(tmp_path, GGUFFile(tensors=[Entry("x", (), 0, bytes(4))])))
    assert header.tensors["x"].shape == (1,)


def test_number_arrays_are_views_of_the_file(tmp_path: Path) -> None:
    numbers = np.arange(1 << 20, dtype="<i4")
    path = write(tmp_path, GGUFFile({"n": array(5, numbers)}))
    header = within_memory(1 << 20, lambda: read_header(path))
    np.testing.assert_array_equal(header.keys["n"], numbers)


def test_strings_are_decoded_when_taken(tmp_path: Path) -> None:
    header = read_header(write(tmp_path, GGUFFile({"t": texts(["a", b"\xff\xfe", "ß"])})))
    strings = header.keys["t"]
    assert isinstance(strings, StringArray)
    assert len(strings) == 3
    assert strings[0] == "a"
    assert strings[-1] == "ß"
    assert strings[2:] == ["ß"]
    with pytest.raises(FormatError, match=r"model\.gguf: t: byte \d+: not UTF-8"):
        list(strings)


# Files that are no files


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"none\.gguf does not exist"):
        read_header(tmp_path / "none.gguf")


def test_a_directory(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="is a directory"):
        read_header(tmp_path)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FormatError, match="not a regular file"):
        read_header(tmp_path / "pipe")


def test_an_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise PermissionError(13, "Permission denied")

    path = write(tmp_path, tiny_llama())
    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(FormatError, match=r"model\.gguf cannot be read: .*Permission denied"):
        read_header(path)


# Hostile headers


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed(case: str, tmp_path: Path) -> None:
    make, message = MALFORMED[case]
    path = write(tmp_path, make())
    error = refusal(path)
    assert isinstance(error, FormatError | UnsupportedError)
    assert re.search(message, str(error))


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    """A sound file cut anywhere: inside the header or the data, never taken for a whole one."""
    whole = tiny_llama().build()
    path = tmp_path / "cut.gguf"
    for length in [*range(0, 2000, 7), *range(2000, len(whole) - 32, 911)]:
        path.write_bytes(whole[:length])
        with pytest.raises(FormatError):
            read_header(path)


def test_the_most_a_header_may_hold_is_read_in_time(tmp_path: Path) -> None:
    """The limits themselves: 65,536 tensors, 16,384 keys and a million strings open within the second."""
    file = GGUFFile({f"k{i}": u32(i) for i in range((1 << 14) - 1)} | {"s": texts([""] * (1 << 20))})
    file.tensors = [Entry(f"t{i}", (8,), 0, bytes(32)) for i in range(MAX_TENSORS)]
    path = write(tmp_path, file)
    start = time.process_time()
    header = read_header(path)
    seconds = time.process_time() - start
    assert len(header.tensors) == MAX_TENSORS
    assert seconds < 2  # the bar is one second on an idle machine; twice that leaves room for a loaded one
