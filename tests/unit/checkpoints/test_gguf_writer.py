"""The GGUF writer: what it writes is read back, by our reader and by the `gguf` package, value for value."""

from __future__ import annotations

import hashlib
from pathlib import Path

import gguf
import numpy as np
import pytest

from openherd.checkpoints.gguf_header import read_header
from openherd.checkpoints.gguf_writer import Encoded, KeyValue, PlannedTensor, write_gguf
from openherd.checkpoints.string_array import StringArray
from openherd.quant.quantize import quantize
from openherd.quant.types import BLOCK_TYPES
from tests.checkpoint_files import tiny_llama

KEYS: dict[str, KeyValue] = {
    "general.architecture": "llama",
    "a.u8": np.uint8(200),
    "a.i8": np.int8(-3),
    "a.u16": np.uint16(60000),
    "a.i16": np.int16(-30000),
    "a.u32": 7,
    "a.i32": -7,
    "a.u64": 1 << 40,
    "a.i64": -(1 << 40),
    "a.f32": 1e-5,
    "a.f64": np.float64(1e-5),
    "a.true": True,
    "a.text": "ümlaut\n\0 and NUL",
    "a.strings": ["", "a", "日本"],
    "a.none": StringArray,
    "a.ints": np.array([1, -2, 3], np.int32),
    "a.floats": np.array([0.5, -np.inf], np.float32),
    "a.bools": np.array([True, False]),
}
TYPES = ("F32", "F16", "BF16", "Q4_0", "Q8_0")


def keys() -> dict[str, KeyValue]:
    return {key: [] if value is StringArray else value for key, value in KEYS.items()}


def tensors() -> list[PlannedTensor]:
    rng = np.random.default_rng(3)
    planned = []
    for number, name in enumerate(TYPES):
        rows = quantize(rng.standard_normal((5 + number, 64), np.float32), BLOCK_TYPES[name])
        chunks = [rows[:2], rows[2:3].reshape(-1)[:7], rows[2:3].reshape(-1)[7:], rows[3:]]
        planned.append(PlannedTensor(f"t.{name}", (5 + number, 64), BLOCK_TYPES[name], lambda c=chunks: iter(c)))
    vector = np.arange(3, dtype="<f4").view(np.uint8)
    planned.append(PlannedTensor("vector", (3,), BLOCK_TYPES["F32"], lambda: [vector]))
    return planned


@pytest.mark.parametrize("alignment", [32, 8, 4096])
def test_round_trip_by_our_reader(tmp_path: Path, alignment: int) -> None:
    path = tmp_path / "x.gguf"
    given = keys() if alignment == 32 else keys() | {"general.alignment": alignment}
    write_gguf(path, given, tensors())
    header = read_header(path)
    assert header.version == 3
    assert header.keys.pop("general.alignment", 32) == alignment
    assert list(header.keys) == list(KEYS)
    for key, value in keys().items():
        read = header.keys[key]
        if isinstance(read, StringArray):
            assert list(read) == value
        elif isinstance(read, np.ndarray):
            assert read.dtype == value.dtype
            np.testing.assert_array_equal(read, value)
        elif isinstance(value, float):
            assert read == (value if isinstance(value, np.floating) else np.float32(value)), key
        else:
            assert read == value, key
    for planned in tensors():
        info = header.tensors[planned.name]
        assert (info.shape, info.type) == (planned.shape, planned.type)
        assert (info.offset - next(iter(header.tensors.values())).offset) % alignment == 0
        raw = b"".join(chunk.tobytes() for chunk in planned.chunks())
        assert info.rows(header.data).tobytes() == raw
    assert path.stat().st_size % alignment == 0


def test_round_trip_by_the_gguf_package(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    write_gguf(path, keys(), tensors())
    reader = gguf.GGUFReader(path)
    kinds = gguf.GGUFValueType
    for key, kind in {"a.u8": kinds.UINT8, "a.i16": kinds.INT16, "a.u32": kinds.UINT32, "a.i32": kinds.INT32,
                      "a.u64": kinds.UINT64, "a.i64": kinds.INT64, "a.f32": kinds.FLOAT32, "a.f64": kinds.FLOAT64,
                      "a.true": kinds.BOOL, "a.text": kinds.STRING, "a.strings": kinds.ARRAY}.items():  # fmt: skip
        assert reader.get_field(key).types[0] == kind, key
    assert reader.get_field("a.text").contents() == KEYS["a.text"]
    assert reader.get_field("a.strings").contents() == KEYS["a.strings"]
    assert reader.get_field("a.ints").contents() == [1, -2, 3]
    for planned, read in zip(tensors(), reader.tensors, strict=True):
        assert read.name == planned.name
        assert read.tensor_type.name == planned.type.name
        assert tuple(int(n) for n in reversed(read.shape)) == planned.shape
        assert read.data.tobytes() == b"".join(chunk.tobytes() for chunk in planned.chunks())


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    digests = set()
    for name in ("a", "b"):
        write_gguf(tmp_path / name, keys(), tensors())
        digests.add(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    assert len(digests) == 1


def test_a_value_that_is_known_when_the_tensors_are_written(tmp_path: Path) -> None:
    written: list[str] = []

    def late_keys() -> dict[str, KeyValue]:
        assert written == [tensor.name for tensor in tensors()]
        return {"a.text": "known now"}

    late, plain = tmp_path / "late.gguf", tmp_path / "plain.gguf"
    early = {**keys(), "a.text": "not known"}
    write_gguf(late, early, tensors(), late_keys=late_keys, progress=lambda done: written.append(done.name))
    write_gguf(plain, {**keys(), "a.text": "known now"}, tensors())
    assert late.read_bytes() == plain.read_bytes()
    with pytest.raises(ValueError, match="cannot become one of"):
        write_gguf(tmp_path / "x.gguf", early, tensors(), late_keys=lambda: {"a.text": "x" * 1000})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["late.gguf", "plain.gguf"]


def test_keys_copied_from_another_file_keep_their_bytes(tmp_path: Path) -> None:
    source = tmp_path / "source.gguf"
    source.write_bytes(tiny_llama().build())
    header = read_header(source)
    data = memoryview(header.file)
    copied: dict[str, KeyValue] = {key: Encoded(data[a:b]) for key, (a, b) in header.key_places.items()}
    planned = [
        PlannedTensor(name, info.shape, info.type, lambda info=info: [info.rows(header.data)])
        for name, info in header.tensors.items()
    ]
    write_gguf(tmp_path / "copy.gguf", copied, planned)
    assert (tmp_path / "copy.gguf").read_bytes() == source.read_bytes()


def test_a_hundred_thousand_tokens(tmp_path: Path) -> None:
    tokens = [f"token {i}" for i in range(100_000)]
    write_gguf(tmp_path / "a", {"tokens": tokens}, [])
    read = read_header(tmp_path / "a").keys["tokens"]
    assert isinstance(read, StringArray)
    write_gguf(tmp_path / "b", {"tokens": read}, [])
    assert list(read) == tokens
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    ("given", "planned", "what"),
    [
        ({"k": 1 << 64}, [], "64 bits"),
        ({"general.alignment": 24}, [], "power of two"),
        ({"k": np.zeros((2, 2), np.float32)}, [], "one dimension"),
        ({"k": np.array([1j])}, [], "complex"),
        ({}, [("n" * 64, (2,))], "63 bytes"),
        ({}, [("n", (1, 1, 1, 1, 2))], "shape"),
        ({}, [("n", (0, 2))], "shape"),
        ({}, [("n", (2,)), ("n", (2,))], "twice"),
    ],
)
def test_what_gguf_cannot_express_is_refused(
    tmp_path: Path, given: dict[str, KeyValue], planned: list, what: str
) -> None:
    f32 = BLOCK_TYPES["F32"]
    data = np.zeros(8, np.uint8)
    with pytest.raises(ValueError, match=what):
        write_gguf(tmp_path / "x", given, [PlannedTensor(n, s, f32, lambda: [data]) for n, s in planned])
    assert not list(tmp_path.iterdir())
