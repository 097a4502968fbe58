"""GGUF headers that must be refused: how to make each file, and the message it must meet."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from openherd.checkpoints.gguf_header import MAX_TENSORS
from tests.checkpoint_files import Entry, GGUFFile, array, f32, text, texts, truth, u32, u64


def one(**changes: object) -> Entry:
    """A sound tensor of four floats, with changes."""
    return Entry(**{"name": "x", "dims": (4,), "type_id": 0, "data": bytes(16), **changes})  # type: ignore[arg-type]


def same_key_twice() -> bytes:
    file = GGUFFile({"a": u32(1), "b": u32(2)})
    return file.build().replace(text("b")[1], text("a")[1])


def deep_array() -> bytes:
    return GGUFFile(
        {"a": (9, b"\x09\x00\x00\x00" + (1).to_bytes(8, "little") + array(0, np.zeros(1, "u1"))[1])}
    ).build()


BIG = 2**63
MALFORMED: dict[str, tuple[Callable[[], GGUFFile | bytes], str]] = {
    "empty": (lambda: b"", "is empty"),
    "one byte": (lambda: b"G", "not a GGUF file"),
    "other magic": (lambda: GGUFFile(magic=b"GGML"), "byte 0: not a GGUF file"),
    "magic alone": (lambda: b"GGUF", "byte 4: the file ends inside its header"),
    "version 0": (lambda: GGUFFile(version=0), "has GGUF version 0; openherd reads versions 2 and 3"),
    "version 1": (lambda: GGUFFile(version=1), "has GGUF version 1"),
    "version 4": (lambda: GGUFFile(version=4), "has GGUF version 4"),
    "big-endian": (lambda: GGUFFile(version=3 << 24), "big-endian"),
    "counts missing": (lambda: GGUFFile().build()[:12], "the file ends inside its header"),
    "2^64 - 1 tensors": (lambda: GGUFFile(num_tensors=2**64 - 1), "18446744073709551615 tensors cannot fit the"),
    "2^63 keys": (lambda: GGUFFile(num_keys=BIG), "9223372036854775808 keys cannot fit"),
    "too many tensors": (
        lambda: GGUFFile(num_tensors=MAX_TENSORS + 1, tail=bytes(24 * MAX_TENSORS + 100)),
        "65537 tensors are more than the limit of 65536",
    ),
    "too many keys": (lambda: GGUFFile(num_keys=1 << 15, tail=bytes(1 << 20)), "32768 keys are more than the limit"),
    "one key too many": (lambda: GGUFFile({"a": u32(1)}, num_keys=2, tail=bytes(16)), "a name is empty"),
    "key past the end": (lambda: GGUFFile({"k": (8, b"\xff" * 8)}), "k: 18446744073709551615 bytes of text cannot"),
    "key of a megabyte": (lambda: GGUFFile({"k" * (1 << 20): u32(1)}), "1048576 bytes of text are more than the limit"),
    "key twice": (same_key_twice, "the key 'a' stands twice"),
    "key not UTF-8": (lambda: GGUFFile({"kkkk": u32(1)}).build().replace(b"kkkk", b"k\xffkk"), "byte 33: not UTF-8"),
    "text not UTF-8": (lambda: GGUFFile({"k": text(b"abc\xff")}), "k: not UTF-8"),
    "control characters in a key": (lambda: GGUFFile({"\x1b[2J": (99, b"1234")}), r"'\\x1b\[2J': unknown value type"),
    "text too long": (lambda: GGUFFile({"k": text(bytes(9 << 20))}), "9437184 bytes of text are more than the limit"),
    "texts too long": (
        lambda: GGUFFile({f"k{i}": text(bytes(3 << 20)) for i in range(3)}),
        "keys, names and strings take more than 8 MiB",
    ),
    "value type 13": (lambda: GGUFFile({"k": (13, bytes(8))}), "k: unknown value type 13"),
    "array of type 13": (lambda: GGUFFile({"k": array(13, np.zeros(2, "u1"))}), "k: unknown value type 13"),
    "truth 2": (lambda: GGUFFile({"k": truth(2)}), "k: a truth value must be 0 or 1, not 2"),
    "truths with a 7": (lambda: GGUFFile({"k": array(7, np.array([0, 1, 7], "u1"))}), "must be 0 or 1, not 7"),
    "nested array": (deep_array, "a is an array of arrays"),
    "2^31 numbers": (lambda: GGUFFile({"k": array(5, np.zeros(2, "<i4"), 1 << 31)}), "2147483648 numbers cannot fit"),
    "2^62 numbers": (lambda: GGUFFile({"k": array(10, np.zeros(2, "<u8"), 1 << 62)}), "numbers cannot fit"),
    "numbers above the limit": (
        lambda: GGUFFile({"k": array(0, np.zeros(17 << 20, "u1"))}),
        "17825792 numbers are more than the limit",
    ),
    "2^60 strings": (lambda: GGUFFile({"k": (9, texts([])[1][:4] + u64(1 << 60)[1])}), "strings cannot fit"),
    "strings above the limit": (
        lambda: GGUFFile({"k": (9, texts([])[1][:4] + u64((1 << 20) + 1)[1])}, tail=bytes(9 << 20)),
        "1048577 strings are more than the limit",
    ),
    "second array above the limit": (
        lambda: GGUFFile({"a": texts([""] * (1 << 20)), "b": texts(["x"])}),
        "b: 1 strings are more than the limit of 0",
    ),
    "string past the end": (
        lambda: GGUFFile({"k": (9, texts(["abc", "d"])[1][:-9] + u64(1000)[1])}),
        "k: string 1 goes past the end",
    ),
    "string of 2^64 - 1": (lambda: GGUFFile({"k": (9, texts(["a"])[1][:12] + b"\xff" * 16)}), "string 0 goes past"),
    "string of 2^63 - 1": (
        lambda: GGUFFile({"k": (9, texts(["a", "b"])[1][:12] + u64(BIG - 1)[1] + bytes(16))}),
        "string 0 goes past the end",
    ),
    "alignment 0": (lambda: GGUFFile({"general.alignment": u32(0)}), "power of two from 8 to 65536, not 0"),
    "alignment 4": (lambda: GGUFFile({"general.alignment": u32(4)}), "power of two from 8"),
    "alignment 24": (lambda: GGUFFile({"general.alignment": u32(24)}), "power of two from 8"),
    "alignment 2^31": (lambda: GGUFFile({"general.alignment": u32(1 << 31)}), "power of two .* not 2147483648"),
    "alignment a float": (lambda: GGUFFile({"general.alignment": f32(32)}), "general.alignment: the alignment is not"),
    "alignment a truth": (lambda: GGUFFile({"general.alignment": truth(1)}), "the alignment is not a whole"),
    "tensor entry cut": (lambda: GGUFFile(num_tensors=1, tail=b"\x01"), "1 tensors cannot fit"),
    "tensor twice": (lambda: GGUFFile(tensors=[one(), one()]), "tensor 'x': the tensor stands twice"),
    "5 dimensions": (lambda: GGUFFile(tensors=[one(dims=(1, 1, 1, 2, 2))]), "tensor 'x': 5 dimensions are more than 4"),
    "2^32 - 1 dimensions": (lambda: GGUFFile(tensors=[one(num_dims=2**32 - 1)]), "4294967295 dimensions"),
    "dimension 0": (lambda: GGUFFile(tensors=[one(dims=(0,))]), r"dimensions \[0\] do not multiply"),
    "2^63 values": (lambda: GGUFFile(tensors=[one(dims=(BIG,))]), "do not multiply to a size"),
    "2^63 - 1 values": (lambda: GGUFFile(tensors=[one(dims=(BIG - 1,))]), "bytes go past the end of the file"),
    "2^62 + 2^62 values": (lambda: GGUFFile(tensors=[one(dims=(1 << 62, 2))]), "do not multiply"),
    "product wraps to 4": (lambda: GGUFFile(tensors=[one(dims=(1 << 33, 1 << 31, 1, 4))]), "do not multiply"),
    "bytes wrap to 0": (lambda: GGUFFile(tensors=[one(dims=(1 << 62,))]), "18446744073709551616 bytes go past the end"),
    "offset past the end": (lambda: GGUFFile(tensors=[one(offset=1 << 20)]), "its 16 bytes go past the end"),
    "offset 2^64 - 32": (lambda: GGUFFile(tensors=[one(offset=2**64 - 32)]), "go past the end"),
    "offset not aligned": (lambda: GGUFFile(tensors=[one(offset=8)]), "offset 8 is not a multiple of the alignment"),
    "data cut": (lambda: GGUFFile(tensors=[one()]).build()[:-20], "its 16 bytes go past the end"),
    "overlap": (lambda: GGUFFile(tensors=[one(), one(name="y", offset=0)]), "it overlaps tensor"),
    "overlap of one byte": (
        lambda: GGUFFile(tensors=[one(dims=(9,), data=bytes(36)), one(name="y", offset=32)]),
        "tensor 'y': it overlaps tensor 'x'",
    ),
    "type of no meaning": (lambda: GGUFFile(tensors=[one(type_id=4)]), "type number 4; openherd reads F32, F16,"),
    "type IQ2_XS": (lambda: GGUFFile(tensors=[one(type_id=17)]), "'x' has type IQ2_XS; openherd reads F32, F16,"),
    "half a block": (lambda: GGUFFile(tensors=[one(dims=(48,), type_id=8)]), "rows of 48 values are not whole"),
}  # fmt: skip
