"""The keys under `openherd.tokenizer.`: what is written is read back, and what is no rule is refused by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from openherd.checkpoints.gguf_header import read_header
from openherd.checkpoints.gguf_keys import Keys
from openherd.checkpoints.gguf_tokenizer import read_tokenizer
from openherd.checkpoints.gguf_tokenizer_writer import tokenizer_keys
from openherd.checkpoints.gguf_writer import KeyValue, PlannedTensor, write_gguf
from openherd.checkpoints.tokenizer_rules import differs_elsewhere, rule_keys
from openherd.errors import FormatError
from openherd.quant.types import BLOCK_TYPES
from openherd.tokenizers import Tokenizer
from openherd.tokenizers.spec import Strip, TokenizerSpec
from tests.unit.tokenizers.small_vocabularies import spm_spec

SPEC = spm_spec()
SIZE = len(SPEC.tokens)
P = "openherd.tokenizer."


def read_back(folder: Path, spec: TokenizerSpec, **keys: KeyValue) -> TokenizerSpec:
    """The tokenizer of a file of `spec` with `keys` over its own."""
    tensor = PlannedTensor("x", (1,), BLOCK_TYPES["F32"], lambda: [np.zeros(4, np.uint8)])
    path = folder / "x.gguf"
    write_gguf(path, {**tokenizer_keys(spec, None), **{P + key: value for key, value in keys.items()}}, [tensor])
    return read_tokenizer(Keys(path, read_header(path).keys), SIZE)


def test_every_rule_is_read_back(tmp_path: Path) -> None:
    piece = next(t for t in SPEC.tokens if len(t) > 1 and t[0] in SPEC.tokens and t[1:] in SPEC.tokens)
    spec = replace(
        SPEC,
        prefix_rule="metaspace-first",
        normalizer="NFC",
        merges=(f"{piece[0]} {piece[1:]}",),
        strips={3: Strip(True, False), 5: Strip(True, True), 7: Strip(False, True)},
        normalized=frozenset({4, SIZE - 1}),
        stop_ids=frozenset({2, SIZE - 1}),
    )
    found = read_back(tmp_path, spec)
    assert (found.prefix_rule, found.normalizer, tuple(found.merges)) == (
        spec.prefix_rule,
        spec.normalizer,
        spec.merges,
    )
    assert found.strips == spec.strips
    assert found.normalized == spec.normalized
    assert found.stop_ids >= spec.stop_ids


def test_without_rules_there_are_no_keys(tmp_path: Path) -> None:
    plain = replace(SPEC, stop_ids=frozenset())
    assert rule_keys(plain) == {}
    assert differs_elsewhere(plain) is None
    assert read_back(tmp_path, plain).prefix_rule == "sentencepiece"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("prefix_rule", "sometimes"),
        ("prefix_rule", ""),
        ("prefix_rule", 1),
        ("prefix_rule", ["sentencepiece"]),
        ("normalizer", "nfc"),
        ("normalizer", True),
        ("merges", "a b"),
        ("merges", np.array([1, 2], np.int32)),
        ("normalized", True),
        ("normalized", np.array([SIZE], np.uint32)),
        ("stop_ids", 2),
        ("stop_ids", "2"),
        ("stop_ids", ["2"]),
        ("stop_ids", np.array([2.0], np.float32)),
        ("stop_ids", np.array([True])),
        ("stop_ids", np.array([-1], np.int32)),
        ("stop_ids", np.array([SIZE], np.uint32)),
        ("stop_ids", np.array([2**63], np.uint64)),
        ("stop_ids", np.zeros(SIZE + 1, np.uint32)),
        ("strip_left", np.array([SIZE], np.uint64)),
        ("strip_left", np.array([-(2**63)], np.int64)),
        ("strip_right", np.array([0.5], np.float64)),
        ("strip_right", "all"),
    ],
)
def test_what_is_no_rule_is_refused_by_name(key: str, value: KeyValue, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=rf"x\.gguf: {P}{key} "):
        read_back(tmp_path, SPEC, **{key: value})


def test_empty_lists_are_no_rules(tmp_path: Path) -> None:
    found = read_back(tmp_path, SPEC, stop_ids=np.array([], np.uint32), strip_left=np.array([], np.uint32))
    assert found.strips == {}


@pytest.mark.parametrize("merge", ["ab", "a b c", "", "a  b"])
def test_merges_that_are_no_pairs_are_refused_when_built(merge: str, tmp_path: Path) -> None:
    spec = read_back(tmp_path, SPEC, merges=["a b", merge])
    with pytest.raises(FormatError, match="is not two tokens"):
        Tokenizer(spec)


def test_merges_of_unknown_pieces_change_nothing(tmp_path: Path) -> None:
    piece = next(t for t in SPEC.tokens if len(t) > 1 and t[0] in SPEC.tokens and t[1:] in SPEC.tokens)
    one = f"{piece[0]} {piece[1:]}"
    with_unknown = Tokenizer(read_back(tmp_path, SPEC, merges=["\u2603 \u2604", one]))
    assert with_unknown.encode(piece) == Tokenizer(read_back(tmp_path, SPEC, merges=[one])).encode(piece)
