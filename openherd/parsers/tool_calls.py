"""Tool calls inside text.

Where the answer is held to a grammar of calls, a call in the form that the grammar writes is given out as it comes.
Any other is held until its object has ended, and given out as a call only if it is one: JSON, with arguments that are
an object, of a function that is offered. What is no call is text, marker and all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Set
from enum import Enum, auto

from openherd.parsers.formats import ToolFormat
from openherd.parsers.json_objects import ObjectScanner, parse_call
from openherd.parsers.markers import Section, held_prefix
from openherd.parsers.pieces import Kind, Piece

# No object's beginning, up to its arguments, is longer in the form that grammars write: a name has 64 characters.
_LONGEST_HEADER = 128


class _State(Enum):
    TEXT = auto()
    BEFORE = auto()  # after a marker, a separator or a list's comma: an object, or a list's bracket
    OBJECT = auto()  # held until it ends
    ARGUMENTS = auto()  # given out as they come
    CLOSING = auto()  # after such arguments: the object's own bracket
    AFTER = auto()  # after a call: what closes, separates, or is text again


class ToolCallParser:
    """Reads one answer. `names`: the offered functions. `is_held`: the answer is held to a grammar of calls."""

    def __init__(self, form: ToolFormat, names: Set[str], *, is_held: bool) -> None:
        self._form = form
        self._names = names
        self._header = (
            re.compile(rf'\{{"name": "([\w-]{{1,64}})", "{form.arguments_key}": (?=\{{)') if is_held else None
        )
        self._state = _State.TEXT
        self._section = Section(after_marker=False)
        self._scanner = ObjectScanner()
        self._unread = ""
        self._read: list[str] = []  # since the last text or call: given back as text if no call comes of it
        self._num_read = 0
        self._object: list[str] = []  # the part of `_read` that is an object
        self._object_length = 0
        self._in_list = False
        self._is_start = form.is_bare  # nothing but blanks so far: a call may come without its marker

    @property
    def num_held(self) -> int:
        return len(self._unread) + self._num_read + self._section.num_held

    def add(self, text: str) -> Iterator[Piece]:
        self._unread += text
        while self._unread:
            before = self._state, len(self._unread)
            yield from self._STEPS[self._state](self)
            if (self._state, len(self._unread)) == before:
                return

    def finish(self) -> Iterator[Piece]:
        """What was held back, now that nothing follows."""
        if self._state is _State.AFTER:
            self._forget()
            if self._form.close.startswith(self._unread):  # a closing marker that was cut short
                self._unread = ""
        if self._state not in (_State.ARGUMENTS, _State.CLOSING):
            self._skip(len(self._unread))
            yield from self._give_back()
        if blanks := self._section.flush():
            yield Piece(Kind.TEXT, blanks)

    def _in_text(self) -> Iterator[Piece]:
        text, marker = self._unread, self._form.marker
        if self._is_start and (begun := text.lstrip()):
            self._is_start = False
            if begun[0] == "{":
                self._skip(len(text) - len(begun))
                self._state = _State.BEFORE
                return
        at = text.find(marker)
        cut = at if at >= 0 else len(text) - held_prefix(text, marker)
        self._unread = text[cut:]
        yield from self._text(text[:cut])
        if at >= 0:
            self._skip(len(marker))
            self._state = _State.BEFORE

    def _before_object(self) -> Iterator[Piece]:
        self._skip_blanks()
        if not self._unread:
            return
        if self._unread[0] == "{":
            self._state = _State.OBJECT
            self._scanner = ObjectScanner()
            self._object, self._object_length = [], 0
        elif self._unread[0] == "[" and not self._in_list:
            self._in_list = True
            self._skip(1)
        else:
            yield from self._give_back()

    def _in_object(self) -> Iterator[Piece]:
        if name := self._begin_arguments():
            yield Piece(Kind.CALL, name)
            return
        end = self._scanner.end(self._unread)
        part = self._unread[:end]
        self._object.append(part)
        self._object_length += len(part)
        self._skip(len(part))
        if end is None:
            return
        call = parse_call("".join(self._object), self._names)
        if call is None:
            yield from self._give_back()
            return
        self._forget()
        self._state = _State.AFTER
        yield Piece(Kind.CALL, call.name)
        yield Piece(Kind.ARGUMENTS, call.arguments)

    def _begin_arguments(self) -> str | None:
        """The function's name, once the object is known to have the grammar's form up to its arguments."""
        num_before = self._object_length
        if self._header is None or num_before > _LONGEST_HEADER:
            return None
        found = self._header.match("".join((*self._object, self._unread)))
        if found is None or found[1] not in self._names:
            return None
        self._unread = self._unread[found.end() - num_before :]
        self._forget()
        self._scanner = ObjectScanner()
        self._state = _State.ARGUMENTS
        return found[1]

    def _in_arguments(self) -> Iterator[Piece]:
        text = self._unread
        end = self._scanner.end(text)
        if end is not None:
            self._state = _State.CLOSING
        self._unread = "" if end is None else text[end:]
        yield Piece(Kind.ARGUMENTS, text[:end])

    def _closing(self) -> Iterator[Piece]:
        if begun := self._unread.lstrip():
            self._state = _State.AFTER
        self._unread = begun.removeprefix("}")
        yield from ()

    def _after_call(self) -> Iterator[Piece]:
        self._skip_blanks()
        text, form = self._unread, self._form
        if not text:
            return
        if self._in_list and text[0] in ",]":
            self._skip(1)
            if text[0] == ",":
                self._state = _State.BEFORE
            else:
                self._in_list = False
                self._forget()
        elif form.separator and text.startswith(form.separator):
            self._skip(len(form.separator))
            self._state = _State.BEFORE
        elif not form.close.startswith(text) or text == form.close:
            self._unread = text.removeprefix(form.close)
            self._in_list = False
            self._forget()
            self._state = _State.TEXT
        yield from ()

    def _skip_blanks(self) -> None:
        self._skip(len(self._unread) - len(self._unread.lstrip()))

    def _skip(self, length: int) -> None:
        """Read so many characters, to be given back as text if no call comes of them."""
        if length:
            self._read.append(self._unread[:length])
            self._num_read += length
            self._unread = self._unread[length:]

    def _forget(self) -> None:
        """What was read is structure, and so are the blanks beside it."""
        self._read, self._num_read = [], 0
        self._section = Section(after_marker=True)

    def _give_back(self) -> Iterator[Piece]:
        """What was read is text after all."""
        text = "".join(self._read)
        self._read, self._num_read = [], 0
        self._in_list = False
        self._state = _State.TEXT
        yield from self._text(text)

    def _text(self, text: str) -> Iterator[Piece]:
        if out := self._section.add(text):
            yield Piece(Kind.TEXT, out)

    _STEPS = {  # noqa: RUF012
        _State.TEXT: _in_text,
        _State.BEFORE: _before_object,
        _State.OBJECT: _in_object,
        _State.ARGUMENTS: _in_arguments,
        _State.CLOSING: _closing,
        _State.AFTER: _after_call,
    }
