"""tokenizer.model of SentencePiece: a protocol buffer, read by a parser of our own for the few fields that matter.

Source: sentencepiece_model.proto (ModelProto: pieces 1, trainer_spec 2, normalizer_spec 3); the wire format of
protocol buffers. Every length is compared with what remains; unknown fields are skipped, as the format wants. Not
covered: Unigram, word and character models, normalisation rules other than "identity", and removal of extra spaces.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from openherd.checkpoints.mapped_file import map_file
from openherd.checkpoints.token_table import TokenTable
from openherd.errors import FormatError, UnsupportedError
from openherd.tokenizers.spec import TokenType

# Gemma's 262,144 pieces take 4.7 MB.
MAX_BYTES = 32 << 20
MAX_PIECES = 1 << 19
# Of all messages together: a piece has at most a text, a score and a type, and is a field itself. A field takes two
# bytes or more and about a microsecond.
MAX_FIELDS = 4 * MAX_PIECES + 4096
_MAX_PIECE_BYTES = 256
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_BPE = 2

Field = int | bytes  # a varint or fixed number, or bytes


@dataclass(frozen=True, slots=True)
class SentencePieceModel:
    """Pieces with their types and scores, and the rules for spaces."""

    table: TokenTable
    scores: list[float]
    unk_id: int | None
    bos_id: int | None
    eos_id: int | None
    pad_id: int | None
    add_space_prefix: bool


def read_sentencepiece_model(path: Path) -> SentencePieceModel:
    """Read and check `path`. Raises FormatError, UnsupportedError or ModelNotFoundError."""
    data = map_file(path)
    if len(data) > MAX_BYTES:
        raise FormatError(f"{path}: {len(data)} bytes are more than the limit of {MAX_BYTES}")
    file = _File(path)
    table, scores = TokenTable(str(path)), list[float]()
    trainer: dict[int, Field] = {}
    normalizer: dict[int, Field] = {}
    for number, value in file.fields(data[:]):
        if number == 1:
            _add_piece(file, table, scores, value)
        elif number == 2:
            trainer = file.message(value)
        elif number == 3:
            normalizer = file.message(value)
    if not scores:
        raise FormatError(f"{path} holds no pieces: not a SentencePiece model")
    _refuse_others(path, trainer, normalizer)

    def special(number: int, default: int) -> int | None:
        value = _signed(trainer.get(number, default))
        return value if 0 <= value < len(scores) else None

    return SentencePieceModel(
        table=table,
        scores=scores,
        unk_id=special(40, 0),
        bos_id=special(41, 1),
        eos_id=special(42, 2),
        pad_id=special(43, -1),
        add_space_prefix=bool(normalizer.get(3, 1)),
    )


def _refuse_others(path: Path, trainer: dict[int, Field], normalizer: dict[int, Field]) -> None:
    model_type = trainer.get(3, 1)
    if model_type != _BPE:
        kind = {1: "Unigram", 3: "word", 4: "character"}.get(model_type if isinstance(model_type, int) else -1, "?")
        raise UnsupportedError(f"{path} is a SentencePiece model of type {kind}; openherd builds BPE")
    if trainer.get(24, 0):
        raise UnsupportedError(f"{path} puts spaces after words (treat_whitespace_as_suffix), which is not supported")
    if normalizer.get(2, b""):
        name = normalizer.get(1, b"")
        shown = name[:40] if isinstance(name, bytes) else name
        raise UnsupportedError(f"{path} normalises text by the rules {shown!r}; openherd supports only 'identity'")
    if normalizer.get(4, 1):
        raise UnsupportedError(f"{path} removes extra spaces from text, which openherd does not support")
    if not normalizer.get(5, 1):
        raise UnsupportedError(f"{path} keeps spaces as they are (escape_whitespaces off), which is not supported")


def _add_piece(file: _File, table: TokenTable, scores: list[float], value: Field) -> None:
    piece = file.message(value)
    raw, score, kind = piece.get(1, b""), piece.get(2, 0), piece.get(3, 1)
    at = f"{file.path}: piece {len(scores)}"
    if len(scores) >= MAX_PIECES:
        raise FormatError(f"{file.path} has more than {MAX_PIECES} pieces")
    if not isinstance(raw, bytes) or not isinstance(score, int) or not isinstance(kind, int):
        raise FormatError(f"{at} has fields of wrong types")
    if len(raw) > _MAX_PIECE_BYTES or kind not in set(TokenType):
        raise FormatError(f"{at} has {len(raw)} bytes and type {kind}")
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise FormatError(f"{at} is not UTF-8") from None
    if kind == TokenType.USER_DEFINED:  # which are looked for in the text itself, as in GGUF
        text = text.replace("▁", " ")
    table.add(len(scores), text, TokenType(kind))
    scores.append(struct.unpack("<f", struct.pack("<I", score & 0xFFFFFFFF))[0])


class _File:
    """The messages of one file, whose fields are counted: small ones that mean nothing would take minutes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._left = MAX_FIELDS

    def message(self, value: Field) -> dict[int, Field]:
        """The last value of each field, which is the one that counts."""
        if not isinstance(value, bytes):
            raise self._fail("a message is a number")
        return dict(self.fields(value))

    def fields(self, data: bytes) -> Iterator[tuple[int, Field]]:
        """(field number, value) one after another."""
        path, pos, end = self.path, 0, len(data)
        while pos < end:
            self._left -= 1
            if self._left < 0:
                raise FormatError(f"{path} has more than {MAX_FIELDS} fields")
            key, pos = _varint(path, data, pos)
            number, wire = key >> 3, key & 7
            value: Field
            if wire == _VARINT:
                value, pos = _varint(path, data, pos)
            elif wire == _BYTES:
                length, pos = _varint(path, data, pos)
                if length > end - pos:
                    raise self._fail(f"{length} bytes do not fit the {end - pos} left")
                value = data[pos : pos + length]
                pos += length
            elif wire in (_FIXED32, _FIXED64):
                size = 4 if wire == _FIXED32 else 8
                if size > end - pos:
                    raise self._fail("it ends within a number")
                value = int.from_bytes(data[pos : pos + size], "little")
                pos += size
            else:
                raise self._fail(f"wire type {wire}")
            if not number:
                raise self._fail("field 0")
            yield number, value

    def _fail(self, what: str) -> FormatError:
        return FormatError(f"{self.path}: not a SentencePiece model ({what})")


def _varint(path: Path, data: bytes, pos: int) -> tuple[int, int]:
    """(value, next position) of at most ten bytes, seven bits each."""
    value = 0
    for shift in range(0, 70, 7):
        if pos >= len(data):
            break
        byte = data[pos]
        pos += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (1 << 64) - 1, pos
    raise FormatError(f"{path}: not a SentencePiece model (a number does not end)")


def _signed(value: Field) -> int:
    """An int32 field: negative ones are written as 64 bits."""
    if not isinstance(value, int):
        return -1
    return value - (1 << 64) if value >> 63 else value
