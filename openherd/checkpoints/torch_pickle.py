"""The pickle inside a torch file, read by an interpreter that can only make dictionaries, tuples and tensor places.

It knows the opcodes that torch.save writes for a dictionary of tensors, and compares every global with a list of names.
Nothing is imported and nothing is called, whatever the file says; every other opcode and every other global is refused
by name. Python's pickle module takes no part.

Source: Python's pickletools (protocols 2 to 5); torch/_utils.py, `_rebuild_tensor_v2`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from openherd.errors import FormatError, UnsupportedError

# A tensor takes about 30 opcodes and 200 bytes, and the greatest models have a few thousand. An opcode makes at most
# 150 bytes of objects: 30 MB in all.
MAX_OPCODES = 150_000
MAX_BYTES = 16 << 20
_MAX_TEXT = 4096  # bytes of one string
_MAX_DIMS = 8


@dataclass(frozen=True, slots=True)
class StorageType:
    """Numbers of one type. `name` is the tensor type it makes, None for numbers that openherd does not read."""

    shown: str
    itemsize: int
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Storage:
    """A member of the archive, `key` its name under data/."""

    type: StorageType
    key: str
    length: int  # numbers


@dataclass(frozen=True, slots=True)
class TensorPlace:
    """A tensor in row-major order without gaps: `offset` in numbers from the start of its storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]


class _Mark:
    """What MARK leaves on the stack."""


@dataclass(frozen=True, slots=True)
class _Global:
    name: str


_MARK = _Mark()
_ORDERED_DICT = _Global("collections.OrderedDict")
_REBUILD_TENSOR = _Global("torch._utils._rebuild_tensor_v2")
_REBUILD_PARAMETER = _Global("torch._utils._rebuild_parameter")
STORAGE_TYPES = {
    f"torch.{kind.shown}": kind
    for kind in (
        StorageType("FloatStorage", 4, "F32"),
        StorageType("HalfStorage", 2, "F16"),
        StorageType("BFloat16Storage", 2, "BF16"),
        StorageType("DoubleStorage", 8),
        StorageType("LongStorage", 8),
        StorageType("IntStorage", 4),
        StorageType("ShortStorage", 2),
        StorageType("CharStorage", 1),
        StorageType("ByteStorage", 1),
        StorageType("BoolStorage", 1),
    )
}
GLOBALS: dict[str, object] = {g.name: g for g in (_ORDERED_DICT, _REBUILD_TENSOR, _REBUILD_PARAMETER)} | dict(
    STORAGE_TYPES
)


def read_tensor_places(raw: bytes, where: str) -> dict[str, TensorPlace]:
    """The dictionary of tensors that the pickle `raw` spells. `where` begins every message.

    Raises FormatError for a pickle that is broken or beyond the limits, UnsupportedError for one that needs more than
    the list, or that is not a flat dictionary of tensors.
    """
    if len(raw) > MAX_BYTES:
        raise FormatError(f"{where}: {len(raw)} bytes of pickle are more than the limit of {MAX_BYTES}")
    value = _Reader(raw, where).read()
    if not isinstance(value, dict):
        raise UnsupportedError(f"{where}: the pickle is not a dictionary of tensors")
    for name, tensor in value.items():
        if not isinstance(name, str) or not isinstance(tensor, TensorPlace):
            shown = name if isinstance(name, str) else type(name).__name__
            raise UnsupportedError(
                f"{where}: the entry {shown[:80]!r} is no tensor; openherd reads a flat dictionary of tensors"
            )
    return value


class _Reader:
    """A stack, a memo, and a method for each opcode."""

    def __init__(self, raw: bytes, where: str) -> None:
        self._raw = raw
        self._where = where
        self._pos = 0
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def read(self) -> Any:
        for _ in range(MAX_OPCODES):
            code = self._take(1)[0]
            if code == _STOP:
                value = self._pop()
                if self._stack:
                    self._fail("it ends with more than one value")
                return value
            step = _OPCODES.get(code)
            if step is None:
                raise UnsupportedError(
                    f"{self._where}: byte {self._pos - 1}: the pickle opcode 0x{code:02x} is not among those that "
                    "torch.save writes for tensors, and openherd runs no code from files"
                )
            step(self)
        self._fail(f"it has more than {MAX_OPCODES} opcodes")

    def _fail(self, what: str) -> NoReturn:
        raise FormatError(f"{self._where}: byte {self._pos}: not a sound pickle: {what}")

    def _take(self, count: int) -> bytes:
        piece = self._raw[self._pos : self._pos + count]
        if len(piece) != count:
            self._fail("it ends too soon")
        self._pos += count
        return piece

    def _number(self, code: str) -> Any:
        return struct.unpack("<" + code, self._take(struct.calcsize("<" + code)))[0]

    def _pop(self) -> Any:
        if not self._stack or self._stack[-1] is _MARK:
            self._fail("it takes a value that is not there")
        return self._stack.pop()

    def _top(self) -> Any:
        if not self._stack:
            self._fail("it takes a value that is not there")
        return self._stack[-1]

    def _since_mark(self) -> list[Any]:
        for at in range(len(self._stack) - 1, -1, -1):
            if self._stack[at] is _MARK:
                items = self._stack[at + 1 :]
                del self._stack[at:]
                return items
        self._fail("a mark is missing")

    def _text(self, length: int) -> None:
        if length > _MAX_TEXT:
            self._fail(f"a string of {length} bytes is more than {_MAX_TEXT}")
        try:
            self._stack.append(self._take(length).decode())
        except UnicodeDecodeError:
            self._fail("a string is not UTF-8")

    def _line(self) -> str:
        end = self._raw.find(b"\n", self._pos, self._pos + _MAX_TEXT)
        if end < 0:
            self._fail("a line does not end")
        line = self._take(end + 1 - self._pos)[:-1]
        try:
            return line.decode()
        except UnicodeDecodeError:
            self._fail("a line is not UTF-8")

    def _long(self) -> None:
        length = self._number("B")
        if length > 8:
            self._fail(f"a number of {length} bytes")
        self._stack.append(int.from_bytes(self._take(length), "little", signed=True))

    def _global(self, module: object, name: object) -> None:
        full = f"{module}.{name}"
        if full not in GLOBALS:
            raise UnsupportedError(
                f"{self._where}: the pickle names {full[:80]!r}, which is not among the {len(GLOBALS)} names that a "
                "dictionary of tensors needs; nothing was imported or run",
                hint="save plain tensors only, or use safetensors",
            )
        self._stack.append(GLOBALS[full])

    def _stack_global(self) -> None:
        name, module = self._pop(), self._pop()
        if not isinstance(name, str) or not isinstance(module, str):
            self._fail("a global's name is no string")
        self._global(module, name)

    def _put(self, number: int) -> None:
        value = self._top()
        if value is _MARK:
            self._fail("it remembers a mark")
        self._memo[number] = value

    def _get(self, number: int) -> None:
        if number not in self._memo:
            self._fail(f"it recalls {number}, which it never remembered")
        self._stack.append(self._memo[number])

    def _tuple(self, length: int) -> None:
        items = [self._pop() for _ in range(length)]
        self._stack.append(tuple(reversed(items)))

    def _set_items(self, items: list[Any]) -> None:
        target = self._top()
        if type(target) is not dict or len(items) % 2:
            self._fail("it sets items of what is no dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str):
                raise UnsupportedError(f"{self._where}: a dictionary has a key that is no string")
            if key in target:
                self._fail(f"the key {key[:80]!r} stands twice")
            target[key] = value

    def _append(self, items: list[Any]) -> None:
        target = self._top()
        if type(target) is not list:
            self._fail("it appends to what is no list")
        target.extend(items)

    def _build(self) -> None:
        """The attributes of a state dictionary (`_metadata`, versions of modules) say nothing about its tensors."""
        state = self._pop()
        if type(state) is not dict or type(self._top()) is not dict:
            self._fail("it gives a state to what is no dictionary")

    def _persistent(self) -> None:
        """A storage: ("storage", type, key, place, length)."""
        place = self._pop()
        if type(place) is not tuple or len(place) != 5 or place[0] != "storage":
            self._fail("a persistent id is no storage")
        _, kind, key, _, length = place
        if not isinstance(kind, StorageType) or not isinstance(key, str) or not _is_size(length):
            self._fail("a storage has a wrong type, key or length")
        self._stack.append(Storage(kind, key, length))

    def _reduce(self) -> None:
        arguments, function = self._pop(), self._pop()
        if type(arguments) is not tuple:
            self._fail("arguments are no tuple")
        if function is _ORDERED_DICT and not arguments:
            self._stack.append({})
        elif function is _REBUILD_TENSOR:
            self._stack.append(self._tensor(arguments))
        elif function is _REBUILD_PARAMETER and arguments and isinstance(arguments[0], TensorPlace):
            self._stack.append(arguments[0])
        else:
            self._fail("it applies what is no function to its arguments")

    def _tensor(self, arguments: tuple[Any, ...]) -> TensorPlace:
        if len(arguments) < 4 or not isinstance(arguments[0], Storage):
            self._fail("a tensor has no storage, offset, size and stride")
        storage, offset, shape, stride = arguments[:4]
        if not _is_size(offset) or not _are_sizes(shape) or not _are_sizes(stride) or len(shape) != len(stride):
            self._fail("a tensor's offset, size or stride is wrong")
        count, contiguous = 1, True
        for size, step in zip(reversed(shape), reversed(stride), strict=True):
            contiguous &= size == 1 or step == count
            count *= size
        if not contiguous:
            raise UnsupportedError(
                f"{self._where}: a tensor of size {shape} has strides {stride}; openherd reads row-major ones"
            )
        if offset + count > storage.length:
            self._fail(f"a tensor of size {shape} at {offset} does not fit its storage of {storage.length}")
        return TensorPlace(storage, offset, shape)


def _is_size(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 48


def _are_sizes(value: object) -> bool:
    return type(value) is tuple and len(value) <= _MAX_DIMS and all(map(_is_size, value))


def _push(value: object) -> Callable[[_Reader], None]:
    return lambda r: r._stack.append(value)


_STOP = ord(".")
_OPCODES: dict[int, Callable[[_Reader], None]] = {
    0x80: lambda r: r._number("B") and None,  # PROTO
    0x95: lambda r: r._number("Q") and None,  # FRAME
    ord("}"): lambda r: r._stack.append({}),
    ord("]"): lambda r: r._stack.append([]),
    ord(")"): _push(()),
    ord("("): _push(_MARK),
    ord("N"): _push(None),
    0x88: _push(True),
    0x89: _push(False),
    ord("J"): lambda r: r._stack.append(r._number("i")),  # BININT
    ord("K"): lambda r: r._stack.append(r._number("B")),  # BININT1
    ord("M"): lambda r: r._stack.append(r._number("H")),  # BININT2
    0x8A: _Reader._long,  # LONG1
    ord("G"): lambda r: r._stack.append(struct.unpack(">d", r._take(8))[0]),  # BINFLOAT
    ord("X"): lambda r: r._text(r._number("I")),  # BINUNICODE
    0x8C: lambda r: r._text(r._number("B")),  # SHORT_BINUNICODE
    ord("c"): lambda r: r._global(r._line(), r._line()),
    0x93: _Reader._stack_global,
    ord("q"): lambda r: r._put(r._number("B")),
    ord("r"): lambda r: r._put(r._number("I")),
    0x94: lambda r: r._put(len(r._memo)),  # MEMOIZE
    ord("h"): lambda r: r._get(r._number("B")),
    ord("j"): lambda r: r._get(r._number("I")),
    ord("t"): lambda r: r._stack.append(tuple(r._since_mark())),
    0x85: lambda r: r._tuple(1),
    0x86: lambda r: r._tuple(2),
    0x87: lambda r: r._tuple(3),
    ord("s"): lambda r: r._set_items([r._pop(), r._pop()][::-1]),
    ord("u"): lambda r: r._set_items(r._since_mark()),
    ord("a"): lambda r: r._append([r._pop()]),
    ord("e"): lambda r: r._append(r._since_mark()),
    ord("b"): _Reader._build,
    ord("Q"): _Reader._persistent,
    ord("R"): _Reader._reduce,
}
