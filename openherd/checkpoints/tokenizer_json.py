"""tokenizer.json of the `tokenizers` package, as far as Llama-family models use it: its parts checked, none run.

Two shapes are read. Byte-level BPE: a pre-tokenizer whose expressions are in our table (an unknown expression is
refused: it would be a stranger's program over every text), and merges. SentencePiece's BPE: spaces made visible by a
normalizer or by Metaspace, byte fallback, and merges.

Source: the serialisation of `tokenizers` 0.13 to 0.22. Not covered: Unigram, WordPiece and WordLevel, tokens that match
whole words only, truncation and padding (which openherd does not do).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn, cast

from openherd.checkpoints.mapped_file import map_file
from openherd.checkpoints.pre_tokenizer_json import pre_tokenizer_name
from openherd.checkpoints.strict_json import read_json_object
from openherd.checkpoints.token_table import TokenTable
from openherd.errors import FormatError, UnsupportedError
from openherd.tokenizers.spec import Normalizer, PrefixRule, Strip, TokenType

# Gemma 3's is the largest in use: 33 MB, and by reckoning 2 million items (half a million merges, each a list of two).
# What these limits let pass takes less than a gigabyte while it is read (measured: 760 MiB for small objects).
MAX_BYTES = 40 << 20
MAX_ITEMS = 3 << 20
MAX_TOKENS = 1 << 20
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_NORMAL_FORMS = ("NFC", "NFD", "NFKC", "NFKD")
_SPACE = "▁"


@dataclass(frozen=True, slots=True)
class TokenizerJson:
    """What the file says, before settings of other files are laid over it."""

    kind: Literal["bpe", "spm"]
    pre: str
    table: TokenTable
    merges: list[str]
    unknown: str | None
    normalizer: Normalizer | None
    add_space_prefix: bool
    prefix_rule: PrefixRule
    normalizes: bool  # whether there is a normalizer, which tokens may be sought behind
    first: str | None  # the token that the post-processor puts before a text
    last: str | None  # and after it


def read_tokenizer_json(path: Path) -> TokenizerJson:
    """Read and check `path`. Raises FormatError, UnsupportedError naming the part, or ModelNotFoundError."""
    return _File(path).read()


class _File:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.root = read_json_object(map_file(path), str(path), limit=MAX_BYTES, most_items=MAX_ITEMS)

    def read(self) -> TokenizerJson:
        model = self.part("model")
        if model.get("type", "BPE") != "BPE":
            self.refuse(f"the model is {_shown(model.get('type'))}; openherd builds BPE")
        for key, neutral in (("dropout", (None, 0, 0.0)), ("continuing_subword_prefix", (None, "")),
                             ("end_of_word_suffix", (None, ""))):  # fmt: skip
            if model.get(key) not in neutral:
                self.refuse(f"model.{key} is {_shown(model[key])}; openherd supports none")
        unknown = model.get("unk_token")
        if unknown is not None and not isinstance(unknown, str):
            self.fail("model.unk_token must be a string")
        table = self._vocabulary(model)
        merges = self._merges(model)
        first, last = self._post_processor(self.root.get("post_processor"))
        normalizer, prefix, rule = self._spaces()
        normalizes = self.root.get("normalizer") is not None
        kind: Literal["bpe", "spm"] = "bpe" if prefix is None else "spm"
        pre = ""
        if kind == "bpe":
            if model.get("byte_fallback"):
                self.refuse("byte fallback beside a byte-level pre-tokenizer is not supported")
            pre = pre_tokenizer_name(self.path, self.root, ignore_merges=model.get("ignore_merges") is True)
        else:
            if model.get("byte_fallback") is not True:
                self.refuse("a BPE vocabulary of whole characters without byte fallback is not supported")
            _mark_bytes(table, unknown)
        self._added_tokens(table)
        return TokenizerJson(kind, pre, table, merges, unknown, normalizer, bool(prefix), rule, normalizes, first, last)

    def fail(self, what: str) -> NoReturn:
        raise FormatError(f"{self.path}: {what}")

    def refuse(self, what: str) -> NoReturn:
        raise UnsupportedError(f"{self.path}: {what}")

    def part(self, key: str) -> dict[str, Any]:
        value = self.root.get(key)
        if not isinstance(value, dict):
            self.fail(f"{key} must be an object")
        return value

    def _vocabulary(self, model: Mapping[str, Any]) -> TokenTable:
        vocab = model.get("vocab")
        if not isinstance(vocab, dict) or not vocab or len(vocab) > MAX_TOKENS:
            self.fail(f"model.vocab must map 1 to {MAX_TOKENS} tokens to ids")
        if not all(type(i) is int and 0 <= i < MAX_TOKENS for i in vocab.values()):
            self.fail(f"ids must be whole numbers below {MAX_TOKENS}")
        table = TokenTable(str(self.path), {token_id: token for token, token_id in vocab.items()})
        if len(table.tokens) != len(vocab):
            self.fail("two tokens have one id")
        table.types = dict.fromkeys(table.tokens, TokenType.NORMAL)
        return table

    def _merges(self, model: Mapping[str, Any]) -> list[str]:
        merges = model.get("merges")
        if not isinstance(merges, list):
            self.fail("model.merges must be a list")
        if merges and isinstance(merges[0], list):
            pairs = [merge for merge in merges if isinstance(merge, list)]
            if len(pairs) != len(merges) or not all(len(p) == 2 and all(isinstance(t, str) for t in p) for p in pairs):
                self.fail("a merge must be two tokens")
            merges = [" ".join(pair) for pair in pairs]
        if not all(isinstance(merge, str) for merge in merges):
            self.fail("a merge must be two tokens")
        return merges

    def _added_tokens(self, table: TokenTable) -> None:
        added = self.root.get("added_tokens") or []
        if not isinstance(added, list) or not all(isinstance(token, dict) for token in added):
            self.fail("added_tokens must be a list of objects")
        for token in added:
            add_token(table, str(self.path), token.get("id"), token)

    def _spaces(self) -> tuple[Normalizer | None, bool | None, PrefixRule]:
        """(normal form, whether spaces get a prefix, None for a byte-level vocabulary, and where)."""
        steps = self._steps(self.root.get("normalizer"), "normalizers")
        normal: str | None = None
        prepends = replaces = False
        for step in steps:
            kind = step.get("type")
            if kind in _NORMAL_FORMS and normal is None and not replaces:
                normal = kind
            elif kind == "Prepend" and step.get("prepend") == _SPACE and not replaces:
                prepends = True
            elif kind == "Replace" and step.get("pattern") == {"String": " "} and step.get("content") == _SPACE:
                replaces = True
            else:
                self.refuse(f"the normalizer {_shown(kind)} is not supported here")
        form = cast("Normalizer | None", normal)
        pre = self.root.get("pre_tokenizer")
        if isinstance(pre, dict) and pre.get("type") == "Metaspace":
            return (form, *self._metaspace(pre, prepends or replaces))
        if replaces:
            splits = isinstance(pre, dict) and pre.get("type") == "Split" and pre.get("pattern") == {"String": " "}
            if pre is not None and not splits:  # after `Replace` there are no spaces to split at
                self.refuse(f"the pre-tokenizer {_shown(pre)} beside visible spaces is not supported")
            return form, prepends, "sentencepiece"
        if prepends:
            self.refuse("the normalizer Prepend without Replace is not supported")
        return form, None, "sentencepiece"

    def _metaspace(self, pre: Mapping[str, Any], normalised: bool) -> tuple[bool, PrefixRule]:
        if normalised or pre.get("replacement", _SPACE) != _SPACE:
            self.refuse("Metaspace with another replacement, or beside a normalizer for spaces, is not supported")
        if pre.get("split", True) is not False:
            self.refuse("Metaspace that splits words is not supported")
        old = "always" if pre.get("add_prefix_space", True) is True else "never"
        scheme = pre.get("prepend_scheme", old)
        if scheme not in ("always", "first", "never"):
            self.fail(f"prepend_scheme is {_shown(scheme)}")
        return scheme != "never", "metaspace-first" if scheme == "first" else "metaspace"

    def _steps(self, part: Any, name: str) -> list[dict[str, Any]]:
        """A part, or the parts of a Sequence."""
        if part is None:
            return []
        if not isinstance(part, dict):
            self.fail(f"{name}: must be an object")
        inner = part.get(name) if part.get("type") == "Sequence" else [part]
        if not isinstance(inner, list) or len(inner) > 16 or not all(isinstance(step, dict) for step in inner):
            self.fail(f"{name}: a Sequence must be a list of at most 16 objects")
        return inner

    def _post_processor(self, part: Any) -> tuple[str | None, str | None]:
        """The tokens before and after a text."""
        first: str | None = None
        last: str | None = None
        for step in self._steps(part, "processors"):
            if step.get("type") == "ByteLevel":
                continue
            if step.get("type") != "TemplateProcessing":
                self.refuse(f"the post-processor {_shown(step.get('type'))} is not supported")
            single = step.get("single")
            if not isinstance(single, list) or len(single) > 3:
                self.refuse("a post-processor's template must be a text with at most one token on each side")
            places = [_place(item) for item in single]
            if places.count(None) != 1 or len(places) > 3:
                self.refuse("a post-processor's template must be a text with at most one token on each side")
            at = places.index(None)
            if at > 1 or len(places) - at > 2:
                self.refuse("a post-processor's template must be a text with at most one token on each side")
            first = places[0] if at else first
            last = places[-1] if at + 1 < len(places) else last
        return first, last


def add_token(table: TokenTable, where: str, token_id: object, token: Mapping[str, Any]) -> None:
    """Add an entry of `added_tokens` or `added_tokens_decoder`. Raises FormatError or UnsupportedError."""
    text = token.get("content")
    if type(token_id) is not int or not 0 <= token_id < MAX_TOKENS or not isinstance(text, str) or not text:
        raise FormatError(f"{where}: an added token must have an id below {MAX_TOKENS} and a text")
    if token.get("single_word"):
        raise UnsupportedError(f"{where}: {text[:40]!r} matches whole words only, which openherd does not support")
    kind = TokenType.CONTROL if token.get("special") else TokenType.USER_DEFINED
    if table.types.get(token_id) == TokenType.UNKNOWN:
        kind = TokenType.UNKNOWN
    table.add(token_id, text, kind, Strip(bool(token.get("lstrip")), bool(token.get("rstrip"))))
    (table.normalized.add if token.get("normalized") else table.normalized.discard)(token_id)


def _mark_bytes(table: TokenTable, unknown: str | None) -> None:
    for token_id, token in table.tokens.items():
        if token == unknown:
            table.types[token_id] = TokenType.UNKNOWN
        elif _BYTE.fullmatch(token):
            table.types[token_id] = TokenType.BYTE


def _place(item: object) -> str | None:
    """The token of a piece of a post-processor's template; None for the text itself; "" for anything else."""
    if isinstance(item, dict):
        if item.keys() == {"Sequence"}:
            return None
        token = item.get("SpecialToken")
        if isinstance(token, dict) and isinstance(token.get("id"), str):
            return cast("str", token["id"])
    return ""


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
