"""The pickle reader makes dictionaries of tensors and nothing else: no import, no call, no unbounded work."""

from __future__ import annotations

import builtins
import pickle
from collections import OrderedDict

import pytest

from openherd.checkpoints.torch_pickle import GLOBALS, MAX_OPCODES, TensorPlace, read_tensor_places
from openherd.errors import FormatError, UnsupportedError
from tests.bounds import within_cpu, within_memory
from tests.torch_files import Entry, name, sizes, state_dict, text, whole

TENSOR = Entry((2, 3)).encode()


class Attack:
    """What a malicious file holds: pickle would call it."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.call


def read(raw: bytes) -> dict[str, TensorPlace]:
    return read_tensor_places(raw, "FILE")


def test_a_dictionary_of_tensors() -> None:
    places = read(state_dict({"a": Entry((2, 3)), "b": Entry((4,), key="7", offset=5, length=9)}))
    assert places["a"].shape == (2, 3)
    assert (places["b"].storage.key, places["b"].offset, places["b"].storage.type.name) == ("7", 5, "F32")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol_of_python_3(protocol: int) -> None:
    """Strings, tuples, marks and memos as Python's own pickler writes them; the tensors stand in by hand."""
    value = {"a": OrderedDict(), "b": [1, 2**40, -1, 1.5, None, True, False, "x" * 300], "c": ((), (1,), (1, 2, 3, 4))}
    with pytest.raises(UnsupportedError, match="the entry 'a' is no tensor"):
        read(pickle.dumps(value, protocol))


def test_parameters_and_the_attributes_of_a_state_dictionary() -> None:
    parameter = name("torch._utils._rebuild_parameter") + b"(" + TENSOR + b"\x88" + b"}" + b"tR"
    raw = state_dict({"a": parameter})[:-1] + b"}" + text("_metadata") + b"}s" + b"b."
    assert read(raw)["a"].shape == (2, 3)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("function", [eval, exec, builtins.__import__, print, OrderedDict.fromkeys, bytearray, getattr])
def test_no_function_is_called(protocol: int, function: object, capsys: pytest.CaptureFixture[str]) -> None:
    attack = pickle.dumps({"a": Attack(function, "print('called')")}, protocol)
    with pytest.raises((UnsupportedError, FormatError), match="FILE"):
        read(attack)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "full",
    ["os.system", "posix.system", "subprocess.Popen", "builtins.eval", "torch.load", "torch.hub.load", "sys.exit",
     "torch._utils._rebuild_tensor", "torch.storage._load_from_bytes", "collections.OrderedDict.__class__",
     "collections.OrderedDict ", "torch.FloatStorage.__init__", "runpy._run_code", "numpy.load", "", "a" * 5000],
)  # fmt: skip
def test_other_globals_are_refused_by_name(full: str) -> None:
    module, _, attribute = full.rpartition(".")
    stacked = text(module) + text(attribute) + b"\x93" if len(full) < 4000 else b""
    for raw in (name(full), stacked):
        with pytest.raises((UnsupportedError, FormatError)) as caught:
            read(b"\x80\x02" + raw + b")R.")
        assert full not in GLOBALS
        assert len(str(caught.value)) < 400


@pytest.mark.parametrize("opcode", [b"i", b"o", b"\x81", b"\x92", b"\x82", b"\x83", b"\x84", b"P", b"I", b"F", b"L",
                                    b"S", b"T", b"U", b"V", b"C", b"B", b"\x8b", b"\x8d", b"\x8e", b"\x8f", b"\x90",
                                    b"\x91", b"\x96", b"\x97", b"\x98", b"0", b"1", b"2", b"g", b"p", b"d", b"l",
                                    b"\x00", b"\xff"])  # fmt: skip
def test_other_opcodes_are_refused(opcode: bytes) -> None:
    with pytest.raises(UnsupportedError, match=f"opcode 0x{opcode[0]:02x} is not among"):
        read(b"\x80\x02" + opcode + b"x\nx\n.")


BROKEN = {
    "nothing": b"",
    "only a protocol": b"\x80\x02",
    "no value": b".",
    "two values": b"}}.",
    "a mark at the end": b"(.",
    "a tuple without mark": b"t.",
    "items without dictionary": b"(" + text("a") + b"Nu.",
    "items of a tuple": b")(" + text("a") + b"Nu.",
    "an odd number of items": b"}(" + text("a") + b"u.",
    "a key twice": b"}(" + text("a") + b"N" + text("a") + b"Nu.",
    "append to a dictionary": b"}Na.",
    "a state for a list": b"]}b.",
    "a state that is none": b"}Nb.",
    "a mark taken for a value": b"(R.",
    "a mark remembered": b"(q\x00.",
    "recalled before it is remembered": b"h\x05.",
    "called with a list": name("collections.OrderedDict") + b"]R.",
    "a storage called": name("torch.FloatStorage") + b")R.",
    "a dictionary with arguments": name("collections.OrderedDict") + b"(Nt" + b"R.",
    "text beyond the end": b"X\xff\x00\x00\x00abc.",
    "long text": b"X\x00\x00\x00\x01" + b"a" * (1 << 20),
    "text that is not UTF-8": b"X\x01\x00\x00\x00\xff.",
    "a long number": b"\x8a\xff" + b"\x01" * 255 + b".",
    "a persistent id that is none": b")Q.",
    "a persistent id of four": b"(" + text("storage") + name("torch.FloatStorage") + text("0") + text("cpu") + b"tQ.",
    "a storage of a dictionary": (
        b"(" + text("storage") + name("collections.OrderedDict") + text("0") + text("cpu") + whole(1) + b"tQ."
    ),
    "a storage of -1": (
        b"(" + text("storage") + name("torch.FloatStorage") + text("0") + text("cpu") + whole(-1) + b"tQ."
    ),
    "a tensor of nothing": name("torch._utils._rebuild_tensor_v2") + b")R.",
    "a tensor without storage": name("torch._utils._rebuild_tensor_v2") + b"(NNNNtR.",
    "a size of -1": Entry((-1, 2), length=9).encode() + b".",
    "a size of 2^62": Entry((2**62, 2), length=9).encode() + b".",
    "an offset of -1": Entry((2, 2), offset=-1, length=9).encode() + b".",
    "beyond the storage": Entry((2, 2), offset=6, length=9).encode() + b".",
    "nine dimensions": Entry((1,) * 9).encode() + b".",
    "strides of another length": Entry((2, 2), stride=(1,)).encode() + b".",
    "a global without end": b"ctorch" + b"x" * 9000,
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken(case: str) -> None:
    with pytest.raises(FormatError, match="FILE: byte"):
        read(b"\x80\x02" + BROKEN[case])


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"N.", "not a dictionary of tensors"),
        (b"}(" + text("a") + b"Nu.", "the entry 'a' is no tensor"),
        (b"}(" + text("model") + b"}u.", "the entry 'model' is no tensor"),
        (b"}(" + b"N" + TENSOR + b"u.", "a key that is no string"),
        (b"}(" + text("a") + Entry((2, 3), stride=(1, 2)).encode() + b"u.", r"size \(2, 3\) has strides \(1, 2\)"),
        (b"}(" + text("a") + Entry((2, 3), stride=(0, 1)).encode() + b"u.", "openherd reads row-major ones"),
    ],
)
def test_sound_but_not_a_flat_dictionary_of_tensors(raw: bytes, message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        read(raw)


UNITS = (b"]", b"}", b"(", b"]\x94", b"]\x85", b"(t", b"h\x00", text("ab") + b"\x94", text("abc"), sizes((1,)))


def refuse(raw: bytes) -> None:
    with pytest.raises(FormatError):
        read(raw)


@pytest.mark.parametrize("unit", UNITS)
def test_work_is_bounded(unit: bytes) -> None:
    """A megabyte of anything is refused within a second."""
    raw = b"\x80\x02}q\x00" + unit * (2**20 // len(unit)) + b"."
    within_cpu(1, lambda: refuse(raw))


@pytest.mark.parametrize("unit", [b"]", b"]\x94", text("ab") + b"\x94"])
def test_memory_is_bounded(unit: bytes) -> None:
    """Of what makes the largest objects from the fewest bytes."""
    raw = b"\x80\x02" + unit * (2**18 // len(unit)) + b"."
    within_memory(2 * len(raw) + (64 << 20), lambda: refuse(raw))


def test_more_opcodes_than_any_model_has() -> None:
    with pytest.raises(FormatError, match=f"more than {MAX_OPCODES} opcodes"):
        read(b"\x80\x02}" + b"(t" * MAX_OPCODES)


def test_tuples_nested_deep_do_not_exhaust_the_stack() -> None:
    with pytest.raises(UnsupportedError, match="not a dictionary"):
        read(b"\x80\x02)" + b"\x85" * (MAX_OPCODES - 9) + b".")
