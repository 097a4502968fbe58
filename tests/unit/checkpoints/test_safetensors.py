"""One safetensors file, sound and hostile."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from openherd.checkpoints.safetensors import read_safetensors
from openherd.checkpoints.strict_json import MAX_BYTES
from openherd.errors import FormatError, HerdError, ModelNotFoundError, UnsupportedError
from tests.bounds import within_cpu, within_memory
from tests.checkpoint_files import safetensors_file, safetensors_of


def tensor(begin: int = 0, end: int = 16, shape: Any = (4,), dtype: Any = "F32", **more: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end], **more}


def test_reads_every_type(tmp_path: Path) -> None:
    values = np.array([[1.5, -2.0, 0.25], [4.0, 0.5, 8.0]], np.float32)
    header = {
        "__metadata__": {"format": "pt"},
        "half": tensor(0, 12, (2, 3), "F16"),
        "single": tensor(12, 36, (2, 3), "F32"),
        "brain": tensor(36, 48, (2, 3), "BF16"),
    }
    brain = (values.view(np.uint32) >> 16).astype("<u2")
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors_file(header, values.astype("<f2").tobytes() + values.tobytes() + brain.tobytes()))
    file = read_safetensors(path)
    assert file.metadata == {"format": "pt"}
    assert [t.type.name for t in file.tensors.values()] == ["F16", "F32", "BF16"]
    np.testing.assert_array_equal(file.tensors["half"].rows(file.data).view("<f2"), values)
    np.testing.assert_array_equal(file.tensors["single"].rows(file.data).copy().view("<f4"), values)
    np.testing.assert_array_equal(file.tensors["brain"].rows(file.data).view("<u2"), brain)


def test_a_scalar_is_one_row(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors_of({"x": np.float32(3)[()]}))  # shape []
    assert read_safetensors(path).tensors["x"].shape == (1,)


def test_no_tensors_at_all(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors_file({}))
    assert read_safetensors(path).tensors == {}


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="does not exist"):
        read_safetensors(tmp_path / "none.safetensors")


D16 = bytes(16)
MALFORMED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty"),
    "7 bytes": (bytes(7), "7 bytes are too few"),
    "length past the end": (safetensors_file({}, length=1000), "a header of 1000 bytes goes past the end"),
    "length 2^64 - 1": (safetensors_file({}, length=2**64 - 1), "18446744073709551615 bytes goes past the end"),
    "length 2^63": (safetensors_file({}, length=2**63), "goes past the end"),
    "huge header": (safetensors_file(b"{" + b" " * MAX_BYTES + b"}"), "bytes is more than the limit of 1048576"),
    "a GGUF file": (b"GGUF" + struct.pack("<IQQ", 3, 0, 0), "goes past the end"),
    "a zip file": (b"PK\x03\x04" + bytes(100), "goes past the end"),
    "not JSON": (safetensors_file(b"{'x': 1}"), "the header: not usable JSON"),
    "not UTF-8": (safetensors_file(b'{"\xff": 1}'), "not usable JSON"),
    "UTF-8 surrogate": (safetensors_file(b'{"\xed\xa0\x80": 1}'), "not usable JSON"),
    "a list": (safetensors_file(b"[]"), "must be a JSON object"),
    "two objects": (safetensors_file(b"{}{}"), "not usable JSON"),
    "deep nesting": (safetensors_file(b'{"x":' + b"[" * 500_000), "not usable JSON"),
    "endless number": (safetensors_file(b'{"x":' + b"9" * 500_000 + b"}"), "not usable JSON"),
    "many lists": (safetensors_file(b'{"x":[' + b"[]," * 340_000 + b"[]]}"), "exactly dtype, shape and data_offsets"),
    "name twice": (
        safetensors_file(b'{"x":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"x":1}', D16),
        "the key 'x' stands twice",
    ),
    "offsets twice": (
        safetensors_file(b'{"x":{"dtype":"F32","shape":[4],"data_offsets":[0,1],"data_offsets":[0,16]}}', D16),
        "the key 'data_offsets' stands twice",
    ),
    "NaN": (safetensors_file(b'{"x":NaN}'), "NaN is not JSON"),
    "metadata a list": (safetensors_file({"__metadata__": []}), "must map strings to strings"),
    "metadata of numbers": (safetensors_file({"__metadata__": {"a": 1}}), "must map strings to strings"),
    "entry a number": (safetensors_file({"x": 1}), "tensor 'x' must have exactly"),
    "no dtype": (safetensors_file({"x": {"shape": [4], "data_offsets": [0, 16]}}, D16), "must have exactly"),
    "one key more": (safetensors_file({"x": tensor(more=1)}, D16), "must have exactly"),
    "dtype a list": (safetensors_file({"x": tensor(dtype=["F32"])}, D16), "dtype must be a string"),
    "dtype I64": (safetensors_file({"x": tensor(dtype="I64")}, D16), "type 'I64'; openherd reads F32, F16, BF16"),
    "dtype F4": (safetensors_file({"x": tensor(dtype="F4" * 99)}, D16), "openherd reads F32, F16, BF16"),
    "shape a number": (safetensors_file({"x": tensor(shape=4)}, D16), "shape must be at most 8 whole numbers"),
    "shape of a float": (safetensors_file({"x": tensor(shape=[4.0])}, D16), "shape must be"),
    "shape of truths": (safetensors_file({"x": tensor(shape=[True, 4])}, D16), "shape must be"),
    "shape below 0": (safetensors_file({"x": tensor(shape=[-2, -2])}, D16), "shape must be"),
    "shape of 2^63": (safetensors_file({"x": tensor(shape=[2**63, 0])}, D16), "shape must be"),
    "nine dimensions": (safetensors_file({"x": tensor(shape=[1] * 8 + [4])}, D16), "shape must be at most 8"),
    "size wraps": (safetensors_file({"x": tensor(shape=[2**62, 4])}, D16), "do not fit shape"),
    "empty tensor": (safetensors_file({"x": tensor(0, 0, [0, 4])}), "is empty"),
    "one offset": (safetensors_file({"x": tensor() | {"data_offsets": [0]}}, D16), "two whole numbers"),
    "offsets below 0": (safetensors_file({"x": tensor(-16, 0)}, D16), "two whole numbers"),
    "offsets backwards": (safetensors_file({"x": tensor(16, 0)}, D16), "do not fit shape"),
    "size and shape": (safetensors_file({"x": tensor(0, 16, [5])}, D16), r"\[0, 16\] do not fit shape \[5\] of F32"),
    "past the end": (safetensors_file({"x": tensor()}, bytes(12)), "the file ends inside its tensors"),
    "far past the end": (safetensors_file({"x": tensor(0, 2**62, [2**60])}, D16), "the file ends inside"),
    "hole at the start": (safetensors_file({"x": tensor(4, 20)}, bytes(20)), "leaves a hole before it"),
    "hole between": (safetensors_file({"x": tensor(), "y": tensor(20, 36)}, bytes(36)), "'y' leaves a hole"),
    "overlap": (safetensors_file({"x": tensor(), "y": tensor(8, 24)}, bytes(24)), "'y' overlaps the one before"),
    "same place": (safetensors_file({"x": tensor(), "y": tensor()}, D16), "'y' overlaps the one before"),
    "trailing bytes": (safetensors_file({"x": tensor()}, D16 + b"PK\x05\x06"), "4 bytes follow the tensors"),
    "trailing bytes alone": (safetensors_file({}, b"#!"), "2 bytes follow the tensors"),
}  # fmt: skip


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed(case: str, tmp_path: Path) -> None:
    raw, message = MALFORMED[case]
    path = tmp_path / "x.safetensors"
    path.write_bytes(raw)

    def refusal() -> HerdError:
        with pytest.raises(HerdError, match=message) as caught:
            read_safetensors(path)
        return caught.value

    error = within_cpu(1, refusal)
    assert isinstance(error, FormatError | UnsupportedError)
    assert str(path) in str(error)
    assert len(str(error)) < 1000
    within_memory(2 * len(raw) + (64 << 20), refusal)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    whole = safetensors_of({"a": np.ones((3, 4)), "b": np.zeros(7)})
    path = tmp_path / "x.safetensors"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(FormatError):
            read_safetensors(path)
