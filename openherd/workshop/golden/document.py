"""The golden document: its parts, its JSON, and how it is read back as the hostile input that it is.

Every list has a bound, every number a range, every string a length; what does not fit is a FormatError that says
where. A document proves that a copy equals what it was made from, not who made it: whoever changes a model can also
change the document in it. Compare the document's own digest, or check against one from elsewhere (`--golden`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from openherd.checkpoints.strict_json import read_json_object
from openherd.errors import FormatError, UnsupportedError
from openherd.workshop.golden.fields import Fields
from openherd.workshop.golden.rounding import coarsest, rounds

VERSION = 1
MAX_BYTES = 2 << 20  # of a document: some 4,000 tensors, and hostile JSON of that size takes 50 MiB
MAX_TENSORS = 1 << 16
MAX_SAMPLES = 256
MAX_IDS = 4096
MAX_TEXT = 1 << 16
MAX_TEMPLATE = 1 << 20  # characters, as files may have it; and of what it makes of a conversation
MAX_SKETCH = 64


@dataclass(frozen=True, slots=True)
class TokenizedText:
    """A text and its ids, as text alone and with control tokens written in it counting as such."""

    text: str
    ids: tuple[int, ...]
    special_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Facts of the tokenizer. Digests are of runs of entries, so that one that differs can be named."""

    facts: Mapping[str, Any]  # kind, pre, ids of special tokens, flags
    digests: Mapping[str, str]  # "tokens", "token_types", "merges": 8 hexadecimal digits a run
    texts: tuple[TokenizedText, ...]


@dataclass(frozen=True, slots=True)
class RenderedChat:
    """A conversation and the text that the template makes of it; None: the template refuses it."""

    messages: tuple[Mapping[str, str], ...]
    text: str | None


@dataclass(frozen=True, slots=True)
class TensorFacts:
    """One tensor in canonical row order: the SHA-256 of its raw blocks, and projections that a quantisation keeps."""

    type: str
    shape: tuple[int, ...]
    sha256: str
    rms: float
    sketch: tuple[float, ...]
    rounded_to: str | None = None  # the coarsest type that the file's values have had since, by the file's own account


@dataclass(frozen=True, slots=True)
class NextToken:
    """The likeliest tokens after `ids`, with natural log-probabilities, best first."""

    ids: tuple[int, ...]
    top: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Golden:
    made_by: str
    numerics_id: str
    config: Mapping[str, Any]
    rotation: tuple[float, ...]
    vocabulary: Vocabulary
    template: str | None
    chats: tuple[RenderedChat, ...]
    tensors: Mapping[str, TensorFacts]
    next_tokens: tuple[NextToken, ...]

    def to_json(self) -> str:
        document = {"openherd_golden": VERSION, **asdict(self)}
        for tensor in document["tensors"].values():
            if tensor["rounded_to"] is None:
                del tensor["rounded_to"]
        return json.dumps(document, ensure_ascii=True, separators=(",", ":"))

    def to_bounded_json(self) -> str:
        """Raises UnsupportedError for so many tensors that it would be too long to travel with a model."""
        document = self.to_json()
        if len(document) > MAX_BYTES:
            raise UnsupportedError(
                f"golden values of {len(self.tensors):,} tensors take more than {MAX_BYTES >> 20} MiB",
                hint="try: --no-golden",
            )
        return document

    @property
    def sha256(self) -> str:
        """Of the values, whatever the file that they lie in went through since."""
        return hashlib.sha256(self.without_history().to_json().encode()).hexdigest()

    def without_history(self) -> Golden:
        """For another file than the one that they lie in, which went through something else."""
        return replace(self, tensors={name: replace(t, rounded_to=None) for name, t in self.tensors.items()})

    def rewritten(self, types: Mapping[str, tuple[str, str]]) -> Golden:
        """The same values, for a file whose tensors of these names had the first type and were written in the second.

        The first counts for files that other programs made; it rounded nothing where it is the recorded type.
        """
        tensors = {**self.tensors}
        for name, (had, written) in types.items():
            if facts := tensors.get(name):
                since = (facts.rounded_to, written, had if had != facts.type else None)
                rounded = [type for type in since if type is not None and rounds(type, facts.shape)]
                tensors[name] = replace(facts, rounded_to=coarsest(*rounded) if rounded else None)
        return replace(self, tensors=tensors)


def read_golden(raw: bytes, where: str) -> Golden:
    """Raises FormatError, beginning with `where`, for what `Golden.to_json` could not have written."""
    if len(raw) > MAX_BYTES:
        raise FormatError(f"{where}: {len(raw)} bytes of golden values are more than the limit of {MAX_BYTES}")
    document = Fields(read_json_object(raw, where, limit=MAX_BYTES), where)
    version = document.whole("openherd_golden")
    if version != VERSION:
        raise FormatError(f"{where}: golden values of version {version}; this openherd reads {VERSION}")
    golden = Golden(
        made_by=document.text("made_by", most=200),
        numerics_id=document.text("numerics_id", most=200),
        config=document.plain("config"),
        rotation=document.numbers("rotation", most=MAX_IDS),
        vocabulary=_vocabulary(document.inner("vocabulary")),
        template=document.text_or_none("template", most=MAX_TEMPLATE),
        chats=tuple(_chat(chat) for chat in document.items("chats", most=MAX_SAMPLES)),
        tensors={name: _tensor(t) for name, t in document.named("tensors", most=MAX_TENSORS)},
        next_tokens=tuple(_next_token(n) for n in document.items("next_tokens", most=MAX_SAMPLES)),
    )
    document.done()
    return golden


def _vocabulary(fields: Fields) -> Vocabulary:
    value = Vocabulary(
        facts=fields.plain("facts"),
        digests={name: fields.inner("digests").text(name, most=1 << 19) for name in fields.inner("digests")},
        texts=tuple(_tokenized(text) for text in fields.items("texts", most=MAX_SAMPLES)),
    )
    fields.done()
    return value


def _tokenized(fields: Fields) -> TokenizedText:
    value = TokenizedText(
        text=fields.text("text", most=MAX_TEXT),
        ids=fields.ids("ids", most=MAX_IDS),
        special_ids=fields.ids("special_ids", most=MAX_IDS),
    )
    fields.done()
    return value


def _chat(fields: Fields) -> RenderedChat:
    messages = tuple(message.texts(most=MAX_TEXT) for message in fields.items("messages", most=64))
    value = RenderedChat(messages, fields.text_or_none("text", most=MAX_TEMPLATE))
    fields.done()
    return value


def _tensor(fields: Fields) -> TensorFacts:
    value = TensorFacts(
        type=fields.text("type", most=16),
        shape=fields.ids("shape", most=8),
        sha256=fields.text("sha256", most=64),
        rms=fields.number("rms", least=0.0),
        sketch=fields.numbers("sketch", most=MAX_SKETCH),
        rounded_to=fields.text("rounded_to", most=16) if "rounded_to" in fields else None,
    )
    fields.done()
    if value.type != "F32" and not rounds(value.type, value.shape):
        raise FormatError(f"{fields.where}: 'type' must be one that a tensor of this shape can have")
    if value.rounded_to is not None and not rounds(value.rounded_to, value.shape):
        raise FormatError(f"{fields.where}: 'rounded_to' must be a type that values of this shape are rounded to")
    return value


def _next_token(fields: Fields) -> NextToken:
    value = NextToken(fields.ids("ids", most=MAX_IDS), fields.pairs("top", most=64))
    fields.done()
    if not value.ids or not value.top:
        raise FormatError(f"{fields.where}: no tokens")
    return value
