"""Every family's tokenizer against its own reference on more than 10,000 strings, in every form of file, and carried
from one form to another."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer as Library

from openherd.checkpoints.gguf_header import read_header
from openherd.checkpoints.gguf_keys import Keys
from openherd.checkpoints.gguf_tokenizer import read_tokenizer
from openherd.checkpoints.gguf_tokenizer_writer import tokenizer_keys
from openherd.checkpoints.gguf_writer import PlannedTensor, write_gguf
from openherd.checkpoints.tokenizer_json_writer import tokenizer_json
from openherd.quant.types import BLOCK_TYPES
from openherd.tokenizers import Tokenizer
from tests.parity.reference_digest import condensed, different, digest
from tests.parity.token_strings import token_strings
from tests.parity.tokenizer_cases import CASES, EXPECTED, spec_of_case

STRINGS = token_strings()
AS_JSON = [name for name, case in CASES.items() if case.reference == "tokenizers"]


@cache
def tokenizer_of(name: str) -> Tokenizer:
    return Tokenizer(spec_of_case(CASES[name]))


@cache
def ids_of(name: str, *, special: bool) -> list[list[int]]:
    return ids(tokenizer_of(name), special=special)


def ids(tokenizer: Tokenizer, *, special: bool) -> list[list[int]]:
    return [tokenizer.encode(text, add_bos=False, special=special) for text in STRINGS]


def unequal(ours: list[list[int]], theirs: list[list[int]]) -> list[tuple[str, list[int], list[int]]]:
    return [row for row in zip(STRINGS, ours, theirs, strict=True) if row[1] != row[2]]


@pytest.mark.parametrize("name", CASES)
def test_ids_equal_the_reference(name: str) -> None:
    """Control tokens as text and as control tokens, where the reference can tell them."""
    assert len(set(STRINGS)) >= 10_000
    plain = ids_of(name, special=False)
    special = ids_of(name, special=True) if CASES[name].has_special else [[]] * len(STRINGS)
    wrong = different(list(map(digest, plain, special)), np.load(EXPECTED / f"{name}.npz"))
    assert [(STRINGS[i], plain[i], special[i]) for i in wrong] == []


@pytest.mark.parametrize("name", AS_JSON)
def test_text_of_ids_equals_the_reference(name: str) -> None:
    library = Library.from_file(str(CASES[name].folder / "tokenizer.json"))
    tokenizer = tokenizer_of(name)
    rows = [(row, tokenizer.decode(row), library.decode(row)) for row in ids_of(name, special=False)]
    assert [row for row in rows if row[1] != row[2]] == []


@pytest.mark.parametrize("name", CASES)
def test_as_gguf_ids_stay(name: str, tmp_path: Path) -> None:
    spec = tokenizer_of(name).spec
    path = tmp_path / "x.gguf"
    tensor = PlannedTensor("x", (1,), BLOCK_TYPES["F32"], lambda: [np.zeros(4, np.uint8)])
    write_gguf(path, tokenizer_keys(spec, None), [tensor])
    copy = Tokenizer(read_tokenizer(Keys(path, read_header(path).keys), len(spec.tokens)))
    assert unequal(ids(copy, special=True), ids_of(name, special=True)) == []


@pytest.mark.parametrize("name", CASES)
def test_as_tokenizer_json_ids_stay(name: str, tmp_path: Path) -> None:
    """What `herd convert` writes, in the library that reads it."""
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(tokenizer_json(tokenizer_of(name).spec)), encoding="utf-8")
    library = Library.from_file(str(path))
    theirs = [library.encode(text, add_special_tokens=False).ids for text in STRINGS]
    assert unequal(ids_of(name, special=True), theirs) == []


def test_one_other_id_is_found() -> None:
    digests = list(range(250))
    recorded = condensed(digests)
    assert different(digests, recorded) == []
    assert different([*digests[:120], 7, *digests[121:]], recorded) == [120]
    assert different([*digests[:120], 120 + 256, *digests[121:]], recorded) == list(range(100, 200))
    with pytest.raises(ValueError, match="250 strings"):
        different(digests[:-1], recorded)
