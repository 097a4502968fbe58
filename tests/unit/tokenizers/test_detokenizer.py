"""The incremental detokenizer says the same as decoding at once, and never half a character."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_vocabularies import bpe_spec, spm_spec

from openherd.tokenizers.tokenizer import Tokenizer

BPE = Tokenizer(bpe_spec())
SPM = Tokenizer(spm_spec())


def whole(tokenizer: Tokenizer, ids: list[int], skip_special: bool) -> str:
    """Decoding by definition: all bytes first, then characters."""
    shown = [i for i in ids if not (skip_special and (tokenizer.is_control(i) or i == tokenizer.spec.unk_id))]
    data = b"".join(map(tokenizer.token_bytes, shown))
    return (data.removeprefix(b" ") if tokenizer.spec.kind == "spm" else data).decode("utf-8", "replace")


@pytest.mark.parametrize("tokenizer", [BPE, SPM], ids=["bpe", "spm"])
@given(data=st.data(), skip_special=st.booleans())
def test_pieces_add_up_to_the_whole(tokenizer: Tokenizer, data: st.DataObject, skip_special: bool) -> None:
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=40))
    expected = whole(tokenizer, ids, skip_special)
    detokenizer = tokenizer.detokenizer(skip_special=skip_special)
    assert "".join(map(detokenizer.add, ids)) + detokenizer.flush() == expected
    assert tokenizer.decode(ids, skip_special=skip_special) == expected


@pytest.mark.parametrize("tokenizer", [BPE, SPM], ids=["bpe", "spm"])
@given(text=st.text(min_size=1))
def test_valid_text_never_shows_a_replacement_character_on_the_way(tokenizer: Tokenizer, text: str) -> None:
    text = text.replace("�", "?").encode("utf-8", "replace").decode()
    detokenizer = tokenizer.detokenizer()
    for token_id in tokenizer.encode(text):
        assert "�" not in detokenizer.add(token_id)
    assert detokenizer.flush() == ""


def test_a_character_is_held_back_until_it_is_whole() -> None:
    ids = BPE.encode("👍")
    assert len(ids) == 4
    detokenizer = BPE.detokenizer()
    assert [detokenizer.add(i) for i in ids] == ["", "", "", "👍"]


def test_half_a_character_at_the_end_becomes_one_replacement_character() -> None:
    detokenizer = BPE.detokenizer()
    assert [detokenizer.add(i) for i in BPE.encode("👍")[:3]] == ["", "", ""]
    assert detokenizer.flush() == "�"
    assert detokenizer.flush() == ""
